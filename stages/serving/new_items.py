"""Items that arrived after training: their titles and covers, in any layout that `source` takes for items."""

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from stages.data.choose import choose_files, pick_one
from stages.data.columns import Wanted, item_columns
from stages.data.fetch import Opened, collect_covers
from stages.data.items import load_items
from stages.data.source import extract, list_paths, readable
from stages.encoders.covers import CoverArchive
from stages.errors import InputError
from stages.serving.trained import ITEMS

NAMED = 5  # ids that a message names


@dataclass(frozen=True)
class NewItems:
    """items: columns of items.parquet, numbered after the known items. covers: of these items only."""

    place: Path
    items: pl.DataFrame
    covers: CoverArchive
    has_images: bool  # whether there are images in `place`, of these items or of none


def read_new_items(place: Path, known: pl.DataFrame, dataset: str, wanted: Wanted, spool: Path) -> NewItems:
    """The items of a folder or archive. known: the rows of items.parquet. spool: an empty folder for copies.

    dataset, wanted: as in params.yaml. Raises InputError when there are no items, or an id is known already.
    """
    if not place.exists():
        raise InputError(f"--new-items {place}: there is no such folder or archive")
    with readable(str(place)), redirect_stdout(sys.stderr):  # what is printed must not be mixed with --json
        files = choose_files(list_paths(place), dataset)
        tables = next(filter(None, files.tables["items"]), [])
        local = extract(place, [*tables, *files.unknown, *files.covers, *files.cover_archives], spool / "files")
        opened = Opened(place, files, local, wanted)
        path = pick_one(files, "items", lambda candidate: opened.looks_like(candidate, "items"))
        if path is None:
            raise InputError(f"--new-items {place}: has no table of items: add items.csv with item_id,title")
        table = opened.table(path)
        columns = item_columns(table.columns, wanted, like=wanted.item, file=table.name)
        found = load_items(table, columns, spool / "items")
        archive = spool / "covers.zip"
        collect_covers(opened, found["raw_id"].to_list(), spool, archive)
    covers = CoverArchive(archive)
    if twice := found.join(known, on="raw_id", how="semi", maintain_order="left")["raw_id"].to_list():
        raise InputError(
            f"--new-items {place}: {ITEMS} has {named(twice)} already ({len(twice):,} of {found.height:,} items): "
            "leave out the items that are known"
        )
    items = found.with_columns(
        item=pl.int_range(pl.len(), dtype=pl.Int32) + known.height + 1,
        cover=pl.Series([raw_id in covers for raw_id in found["raw_id"]]),
        count=pl.lit(0, pl.Int32),
    )
    has_images = bool(files.covers or files.cover_archives)
    return NewItems(place, items.select(known.columns), covers, has_images)


def named(raw_ids: list[str]) -> str:
    """The first few ids, for a message."""
    return ", ".join(raw_ids[:NAMED]) + (" …" if len(raw_ids) > NAMED else "")
