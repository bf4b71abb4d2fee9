"""The layout of artifacts/raw: NineRec's `NAME_pair.csv` and `NAME_item.csv`, with a fixed order of columns.

NAME_pair.csv: item, user, timestamp (a whole number). NAME_item.csv: item, Chinese title, English title. No headers.
If there are covers, `NAME_cover.zip` has them (covers.py).
"""

from pathlib import Path

import polars as pl

from stages.errors import InputError

PAIRS = {"raw_item": pl.String, "raw_user": pl.String, "timestamp": pl.Int64}
ITEMS = {"raw_id": pl.String, "title_zh": pl.String, "title_en": pl.String}
TITLES = ("title_zh", "title_en")


def write_pairs(path: Path, rows: pl.LazyFrame) -> None:
    """Write interactions, streaming. rows: columns of PAIRS."""
    rows.select(*PAIRS).sink_csv(path, include_header=False, engine="streaming")


def scan_pairs(path: Path) -> pl.LazyFrame:
    """The interactions as a lazy frame, in file order: `raw_user` str, `raw_item` str, `timestamp` int64."""
    _must_exist(path)
    return pl.scan_csv(path, has_header=False, schema=PAIRS).select("raw_user", "raw_item", "timestamp")


def write_items(path: Path, items: pl.DataFrame) -> None:
    """Write items. items: columns of ITEMS, '' for no title."""
    empty_as_null = [pl.when(pl.col(name) != "").then(name) for name in TITLES]  # or polars writes "" for ''
    items.select("raw_id", *empty_as_null).write_csv(path, include_header=False)


def read_items(path: Path) -> pl.DataFrame:
    """The items in file order: `raw_id`, `title_zh`, `title_en`, all str, '' for no title."""
    _must_exist(path)
    return pl.read_csv(path, has_header=False, schema=ITEMS).with_columns(pl.col(TITLES).fill_null(""))


def has_title(column: str) -> pl.Expr:
    """Whether an item has more than blanks in a column of titles."""
    return pl.col(column).str.strip_chars() != ""


def check_titles(path: Path, items: pl.DataFrame, language: str, modalities: tuple[str, ...]) -> None:
    """Raise InputError, with the mend, when no item has a title in `language`, which the judge and the encoder read.

    Without a title in any language it passes as long as `modalities` has no text. path: the file of `items`.
    """
    titled = {name: bool(items.select(has_title(name).any()).item()) for name in TITLES}
    if titled[f"title_{language}"]:
        return
    if others := [name.removeprefix("title_") for name in TITLES if titled[name]]:
        raise InputError(f"{path}: no item has a title_{language}: set language={others[0]}")
    if "text" in modalities:
        without = ",".join(name for name in modalities if name != "text") or "id"
        raise InputError(
            f"{path}: no item has a title, title_zh and title_en are empty: run with -S 'modalities=[{without}]', or "
            "name the column of titles in columns.title"
        )


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path} is missing: run `dvc repro download` to make it")
