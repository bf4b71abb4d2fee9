"""Write artifacts/raw from the files of a source: find the files, find their columns, check, convert."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import polars as pl

from stages.data.choose import Files, choose_files, image_suffixes, pick_one
from stages.data.columns import (
    InteractionColumns,
    Wanted,
    interaction_columns,
    item_columns,
    looks_like,
    refuse_unknown_header,
)
from stages.data.covers import match_covers, pack_covers
from stages.data.interactions import scan_interactions, unknown_items
from stages.data.items import load_items
from stages.data.ninerec import scan_pairs, write_items, write_pairs
from stages.data.source import extract, list_paths, locate, readable
from stages.data.tables import Table, open_table
from stages.errors import InputError

NUMBER_OR_DATE = re.compile(r"\s*\d[\d.:/T+ -]*Z?\s*")
NAMED = 3  # tables whose faults a message names


@dataclass
class Opened:
    """The candidates among the files of a source, on this disk."""

    place: Path
    files: Files
    local: dict[PurePosixPath, Path]
    wanted: Wanted
    tables: dict[PurePosixPath, Table] = field(default_factory=dict)

    def table(self, path: PurePosixPath) -> Table:
        """The table at a path of the source. Raises InputError when it cannot be read."""
        if path not in self.tables:
            self.tables[path] = open_table(self.local[path], path, self.wanted)
        return self.tables[path]

    def looks_like(self, path: PurePosixPath, role: str) -> bool:
        """Whether a file is a table with the columns of a role."""
        try:
            table = self.table(path)
        except InputError:  # a README.txt, for one
            return False
        if table.header:
            return looks_like(role, table.columns, self.wanted)
        if role == "interactions":
            return len(table.columns) == 3 and bool(NUMBER_OR_DATE.fullmatch(table.first_row[2]))
        return len(table.columns) == 2 and path.suffix != ".txt"


def fetch(dataset: str, source: str, sha256: str, wanted: Wanted, folder: Path) -> None:
    """Write `dataset` as found in `source` into `folder`, which the caller makes atomic, and print what was read.

    source: a folder, a tar or zip archive, an http(s) URL of one, one table, or '' for NineRec's official archive.
    Raises InputError, naming the source, when it is missing, damaged, unsafe, lacks the dataset's files, or when it is
    not certain which file or column is meant.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with readable(source or "NineRec's official archive"), tempfile.TemporaryDirectory(dir=folder) as name:
        place, spool = locate(source, sha256), Path(name)
        files = choose_files(list_paths(place), dataset)
        tables = [path for pools in files.tables.values() for path in next(filter(None, pools), [])]
        local = extract(place, [*tables, *files.unknown, *files.covers, *files.cover_archives], spool / "files")
        opened = Opened(place, files, local, wanted)
        ids = _write_tables(opened, dataset, spool, folder)
        collect_covers(opened, ids, spool, folder / f"{dataset}_cover.zip")


def _write_tables(opened: Opened, dataset: str, spool: Path, folder: Path) -> list[str]:
    """Write interactions and items. → the ids of the items."""
    wanted, files = opened.wanted, opened.files
    path = _pick_interactions(opened, dataset)
    interactions = opened.table(path)
    columns = _find_columns(interactions, wanted)
    items_path = pick_one(files, "items", lambda candidate: candidate != path and opened.looks_like(candidate, "items"))
    item_table = opened.table(items_path) if items_path else None
    items = _read_items(item_table, columns, wanted, spool) if item_table else None
    for role, given, found in (("item", wanted.item, columns.item), ("title", wanted.title, columns.title)):
        if given not in ("", found) and not (item_table and given in item_table.columns):
            raise InputError(
                f"columns.{role}={given}: {interactions.name} has no such column, nor has an items' file: name one "
                "that is there, or empty the key"
            )
    rows, columns = scan_interactions(interactions, columns, items, spool / "interactions")
    items_file = items_path.as_posix() if items_path else ""
    new = unknown_items(rows, items, interactions=interactions.name, file=items_file)
    write_pairs(folder / f"{dataset}_pair.csv", rows)
    every = new if items is None else pl.concat([items, new])
    write_items(folder / f"{dataset}_item.csv", every)
    print(f"interactions: {path} (columns of user, item, time: {columns.user}, {columns.item}, {columns.time})")
    if _have_one_time(folder / f"{dataset}_pair.csv"):
        print("interactions: all have the same time: each user's items are taken in the order of the file")
    print(f"items: {items_file or 'no file'}, {every.height:,} items, {new.height:,} of them in the interactions alone")
    return every["raw_id"].to_list()


def _have_one_time(pairs: Path) -> bool:
    time = pl.col("timestamp")
    return bool(scan_pairs(pairs).select(time.min() == time.max()).collect(engine="streaming").item())


def _pick_interactions(opened: Opened, dataset: str) -> PurePosixPath:
    files = opened.files
    path = pick_one(files, "interactions", lambda path: opened.looks_like(path, "interactions"))
    if path:
        return path
    if len(files.unknown) == 1 and not any(files.tables["items"]) and not files.other_datasets:
        return files.unknown[0]  # reading it tells what is wrong with it
    if files.other_datasets:
        has = f"it holds {', '.join(sorted(files.other_datasets))}"
    else:
        has = "; ".join(["nor another table of interactions", *_faults(opened)])
    raise InputError(f"source: {opened.place} has no {dataset}_pair.csv ({has}): mend `dataset` or `source`")


def _faults(opened: Opened) -> Iterator[str]:
    """Why the first few tables with names that we do not know are no interactions."""
    for path in opened.files.unknown[:NAMED]:
        try:
            _find_columns(opened.table(path), opened.wanted)
        except InputError as error:
            yield str(error)


def _find_columns(interactions: Table, wanted: Wanted) -> InteractionColumns:
    if not interactions.header:
        refuse_unknown_header(interactions.first_row, interactions.name)
    return interaction_columns(interactions.columns, wanted, header=interactions.header, file=interactions.name)


def _read_items(table: Table, like: InteractionColumns, wanted: Wanted, spool: Path) -> pl.DataFrame:
    columns = item_columns(table.columns, wanted, like=like.item, file=table.name)
    return load_items(table, columns, spool / "items")


def collect_covers(opened: Opened, ids: list[str], spool: Path, target: Path) -> None:
    """Pack the covers of the items, from images and from archives of images; no file when there are none."""
    images = [(path, opened.local[path]) for path in opened.files.covers]
    for number, archive in enumerate(opened.files.cover_archives):
        place = opened.local[archive]
        inside = [path for path in list_paths(place) if path.suffix.lower() in image_suffixes()]
        local = extract(place, inside, spool / f"covers{number}")
        images += [(archive / path, local[path]) for path in inside]
    covers = match_covers(images, set(ids))
    if covers:
        pack_covers(target, covers)
    missing = [item for item in ids if item not in covers]
    example = f" (not {', '.join(missing[:3])}{' …' * (len(missing) > 3)})" if covers and missing else ""
    print(f"covers: {len(covers):,} of {len(ids):,} items{example}; {len(images) - len(covers):,} images of no item")
