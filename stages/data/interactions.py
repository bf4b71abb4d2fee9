"""Read and check the interactions; find the items that the items' file lacks."""

from dataclasses import replace
from pathlib import Path

import polars as pl

from stages.data.columns import InteractionColumns
from stages.data.items import id_as_text, title_as_text
from stages.data.ninerec import ITEMS
from stages.data.tables import Table
from stages.data.timestamps import whole_numbers
from stages.errors import InputError

FEW = 0.5  # a column with a smaller share of its values in the items' file is not the item column
SETTLE = "set columns.item"
DATE = r"^\s*\d{4}[-/]\d{1,2}[-/]\d{1,2}"
CLOCK = r"^\s*\d{9,}(\.\d+)?\s*$"  # seconds since 1970, or smaller units
TOP_RATING = 10  # of all usual scales
MANY_RATINGS = 21  # 0 to 10 by halves


def scan_interactions(
    table: Table, columns: InteractionColumns, items: pl.DataFrame | None, spool: Path
) -> tuple[pl.LazyFrame, InteractionColumns]:
    """raw_user, raw_item (text), timestamp (int64), in the order of the file; and `title`, where `columns` names it.

    items: the content of the items' file, None without one; it shows which column is the item if there is no header.
    → the rows, and the columns with user and item filled in.
    Raises InputError with the row of an empty id or a bad timestamp, or when user and item cannot be told apart.
    """
    named = {"user": columns.user, "item": columns.item} if columns.user else _unnamed(table, columns)
    if columns.title:
        named["title"] = columns.title
    rows = table.scan(named | {"time": columns.time}, spool)
    ids = [id_as_text(rows, name, table.name, shown=named[name]).alias(name) for name in named if name != "title"]
    rows = rows.with_columns(ids)
    _refuse_empty(rows, table.name)
    rivals = {name: number for name, number in named.items() if number in columns.may_be_time}
    _refuse_better_time(rows, rivals, table.name)
    time = whole_numbers(rows, "time", table.name)
    if not columns.user:
        roles = _tell_apart(rows, table, columns, items)
        rows = rows.rename(roles)
        number = {role: named[name] for name, role in roles.items()}
        columns = replace(columns, user=number["user"], item=number["item"])
    if columns.may_be_time:
        _refuse_ratings(rows, columns.time, table.name)
    title = [title_as_text(rows, "title", table.name, shown=columns.title)] if columns.title else []
    return rows.select(*title, raw_user="user", raw_item="item", timestamp=time), columns


def unknown_items(rows: pl.LazyFrame, items: pl.DataFrame | None, *, interactions: str, file: str) -> pl.DataFrame:
    """Items of the interactions that the items' file lacks, in order of first appearance, without titles.

    With a column `title`, an item's first title that is not empty is its title. Raises InputError when the file has
    less than half of the items: the two files are not of one dataset.
    """
    first = pl.col("row").min()
    numbered = rows.with_row_index("row")
    title = pl.lit("")
    if "title" in rows.collect_schema():
        titled = pl.col("title") != ""
        title = pl.col("title").filter(titled).sort_by(pl.col("row").filter(titled)).first().fill_null("")
    found = numbered.group_by(raw_id="raw_item").agg(first, title=title).sort("row").collect(engine="streaming")
    if items is not None:
        new = found.join(items, on="raw_id", how="anti", maintain_order="left")
        if new.height > found.height * (1 - FEW):
            raise InputError(
                f"{file} has {found.height - new.height:,} of the {found.height:,} items of {interactions} (not "
                f"{new['raw_id'][0]!r}, for one): use the two files of one dataset, or {SETTLE}"
            )
        found = new
    return found.select("raw_id", title_zh="title", title_en="title").cast(ITEMS)  # type: ignore[arg-type]


def _unnamed(table: Table, columns: InteractionColumns) -> dict[str, str]:
    first, second = (name for name in table.columns if name != columns.time)
    return {"first": first, "second": second}


def _refuse_empty(rows: pl.LazyFrame, file: str) -> None:
    names = [name for name in rows.collect_schema().names() if name not in ("row", "time", "title")]
    empty = pl.any_horizontal(pl.col(name) == "" for name in names)
    count, fault = rows.select(pl.len(), pl.col("row").filter(empty).min()).collect(engine="streaming").row(0)
    if not count:
        raise InputError(f"{file} has no interactions: get it anew")
    if fault is not None:
        raise InputError(f"{file}, row {fault}: an id is empty: fill it in, or remove the row")


def _refuse_better_time(rows: pl.LazyFrame, rivals: dict[str, str], file: str) -> None:
    """Raise InputError when the values of a rival look more like times than those of `time`, found by its place.

    rivals: {name in the frame: number in the file}. Dates are surer than long numbers, which may also be ids.
    """
    if not rivals:
        return
    forms = [pl.col("time", *rivals).str.contains(form).all().name.suffix(form) for form in (DATE, CLOCK)]
    fits = rows.select(forms).collect(engine="streaming").row(0, named=True)
    sure = {name: 2 * fits[name + DATE] + fits[name + CLOCK] for name in ("time", *rivals)}
    best = max(sure, key=lambda name: sure[name])  # the first of equals
    if best != "time":
        raise InputError(
            f"{file}: column 3 has the time where there is no header, but the values of column {rivals[best]} look "
            "more like times: set columns.time"
        )


def _refuse_ratings(rows: pl.LazyFrame, number: str, file: str) -> None:
    """Raise InputError when `time`, found by its place, looks like ratings: few small values, equal ones of one user.

    Order numbers, which serve as times too, differ within a user.
    """
    value = pl.col("time").cast(pl.Float64, strict=False)
    least, most = rows.select(least=value.min(), most=value.max()).collect(engine="streaming").row(0)
    if most is None or least < 0 or most > TOP_RATING:  # None: dates
        return
    if rows.select(value.n_unique()).collect(engine="streaming").item() > MANY_RATINGS:
        return
    equal = rows.group_by("user", "time").agg(pl.col("item").n_unique()).filter(pl.col("item") > 1)
    if equal.first().collect(engine="streaming").height:
        raise InputError(
            f"{file}: column {number} would be the time, but its values look like ratings ({least:g} to {most:g}, "
            f"equal ones of one user): add a column of times, or set columns.time={number} if these are times"
        )


def _tell_apart(
    rows: pl.LazyFrame, table: Table, columns: InteractionColumns, items: pl.DataFrame | None
) -> dict[str, str]:
    """Which of `first` and `second` is the item: all its values are in the items' file, and few of the other's."""
    if items is None:
        raise InputError(
            f"{table.name} has no header and there is no items' file: {SETTLE} to the number of its column of items"
        )
    known = items["raw_id"].implode()
    names = ("first", "second")
    numbers = [name for name in table.columns if name != columns.time]
    values = {name: pl.col(name).n_unique() for name in names}
    shared = {f"{name} known": pl.col(name).filter(pl.col(name).is_in(known)).n_unique() for name in names}
    first, second, first_known, second_known = rows.select(**values, **shared).collect(engine="streaming").row(0)
    # few of its own values, and few beside the other's: ids of both kinds may be numbers from 1, and the file too short
    if first == first_known and second_known < min(second, first_known) * FEW:
        return {"first": "item", "second": "user"}
    if second == second_known and first_known < min(first, second_known) * FEW:
        return {"first": "user", "second": "item"}
    if first == first_known and second == second_known:
        raise InputError(
            f"{table.name}: the items' file has all values of column {numbers[0]} and all of column {numbers[1]}, so "
            f"either can be the items: {SETTLE} to {numbers[0]} or {numbers[1]}"
        )
    strangers = [_first_stranger(rows.select(name), items) for name in names]
    raise InputError(
        f"{table.name}: which column has the items is not certain (the items' file lacks {first - first_known:,} of "
        f"{first:,} values of column {numbers[0]}{strangers[0]}, and {second - second_known:,} of "
        f"{second:,} of column {numbers[1]}{strangers[1]}): use two files of one dataset, or {SETTLE}"
    )


def _first_stranger(ids: pl.LazyFrame, items: pl.DataFrame) -> str:
    strangers = ids.filter(~pl.first().is_in(items["raw_id"].implode())).first().collect(engine="streaming")
    return f", such as {strangers.item()!r}" if strangers.height else ""
