"""Read and check the items and their titles, in the order of the file."""

from pathlib import Path

import polars as pl

from stages.data.columns import ItemColumns, refuse_item_header
from stages.data.ninerec import ITEMS, TITLES
from stages.data.tables import Table
from stages.errors import InputError


def load_items(table: Table, columns: ItemColumns, spool: Path) -> pl.DataFrame:
    """raw_id, title_zh, title_en, all text; a missing title is ''. Equal rows count once.

    Raises InputError for a row without an id, an id with two different titles, a table without rows, or a first row
    that looks like an unknown header.
    """
    wanted = {"raw_id": columns.item, "title_zh": columns.title_zh, "title_en": columns.title_en}
    rows = table.scan({new: old for new, old in wanted.items() if old}, spool)
    titles = [
        title_as_text(rows, name, table.name, shown=wanted[name]) if wanted[name] else pl.lit("").alias(name)
        for name in TITLES
    ]
    items = rows.with_columns(id_as_text(rows, "raw_id", table.name, shown=columns.item), *titles).collect()
    items = items.filter(~pl.all_horizontal(pl.col(*ITEMS) == ""))  # a row of separators only
    if items.is_empty():
        raise InputError(f"{table.name} has no items: get it anew")
    if nameless := items.filter(pl.col("raw_id") == "")["row"].to_list():
        raise InputError(f"{table.name}, row {nameless[0]}: the item id is empty: fill it in, or remove the row")
    items = items.unique(list(ITEMS), keep="first", maintain_order=True)
    if twice := items.filter(~pl.col("raw_id").is_first_distinct()).select("raw_id", "row").rows():
        raise InputError(
            f"{table.name}, row {twice[0][1]}: item {twice[0][0]!r} is there twice with different titles: remove one"
        )
    if not table.header:
        refuse_item_header(table.first_row, items["raw_id"].to_list(), table.name)
    return items.select(*ITEMS)


def id_as_text(rows: pl.LazyFrame, column: str, file: str, *, shown: str = "") -> pl.Expr:
    """An expression that gives ids as text without blanks around them, '' for a missing one.

    shown: the column's name in messages, if it has another in the file. Raises InputError for other types than text
    and whole numbers: a float does not show how the id is written.
    """
    dtype = rows.collect_schema()[column]
    if not _shows_text(dtype):
        raise InputError(
            f"{file}: ids in the column {shown or column} are of type {dtype}: make them text or whole numbers"
        )
    return pl.col(column).cast(pl.String).str.strip_chars().fill_null("")


def title_as_text(rows: pl.LazyFrame, column: str, file: str, *, shown: str) -> pl.Expr:
    """An expression that gives titles as text, '' for a missing one.

    shown: the column's name in the file. Raises InputError for other types than text and whole numbers.
    """
    dtype = rows.collect_schema()[column]
    if not (_shows_text(dtype) or dtype == pl.Null):
        raise InputError(f"{file}: titles in the column {shown} are of type {dtype}: make them text")
    return pl.col(column).cast(pl.String).fill_null("")


def _shows_text(dtype: pl.DataType) -> bool:
    return dtype.is_integer() or dtype in (pl.String, pl.Categorical, pl.Enum)
