"""For whom to recommend: users and their histories, of the dataset or from a file."""

import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from stages.data.columns import ITEM, TIME, USER, Wanted, find_column, plain
from stages.data.histories import Histories
from stages.data.items import id_as_text
from stages.data.tables import Table, open_table
from stages.data.timestamps import whole_numbers
from stages.errors import InputError
from stages.files import read_parquet
from stages.provenance import check_inputs
from stages.serving.trained import ITEMS

FULL = Path("artifacts/split/full.parquet")
NAMED = 5  # unknown ids that a message names


@dataclass(frozen=True)
class Requests:
    """users: raw ids, each once. histories: of item numbers, row n is that of users[n], possibly without items."""

    users: pl.Series
    histories: Histories

    @staticmethod
    def from_frame(frame: pl.DataFrame) -> "Requests":
        """frame: raw_id, items (lists of item numbers)."""
        return Requests(frame["raw_id"], Histories.from_frame(frame))

    def part(self, begin: int, end: int) -> "Requests":
        """The users of rows begin to end − 1."""
        return Requests(self.users[begin:end], self.histories.part(begin, end))


def all_users() -> Requests:
    """Every user of the dataset, with the whole history: what was held out for the test is known by now."""
    full = read_parquet(FULL)
    check_inputs(FULL, ITEMS)
    return Requests.from_frame(full)


def listed_users(path: Path, wanted: Wanted, *, ignore_unknown: bool) -> Requests:
    """The users of a file, in its order, each once, with their whole histories.

    They are the file's only column, or the one that `wanted` or a usual name tells. Users that the dataset does not
    have are refused (InputError), or have no history if `ignore_unknown`.
    """
    full = read_parquet(FULL)
    check_inputs(FULL, ITEMS)
    table = _open("--users", path, wanted)
    if not table.header and len(table.columns) > 1:
        raise InputError(f"--users {path}: has several columns and no header: leave one, or name the users' user_id")
    column = table.columns[0] if len(table.columns) == 1 else _column("user", table, USER, wanted.user)
    with TemporaryDirectory() as folder:
        rows = table.scan({"user": column}, Path(folder) / "rows")
        users = rows.select(raw_id=id_as_text(rows, "user", table.name)).collect()
    users = users.filter(pl.col("raw_id") != "").unique(maintain_order=True)
    _refuse_none(users, table)
    found = users.join(full, on="raw_id", how="left", maintain_order="left")
    unknown = found.filter(pl.col("items").is_null())["raw_id"]
    _refuse_unknown("--users", table, unknown, f"of {users.height:,} users", FULL, ignore=ignore_unknown)
    return Requests.from_frame(found.with_columns(pl.col("items").fill_null([])))


def read_histories(path: Path, items: pl.DataFrame, wanted: Wanted, *, ignore_unknown: bool) -> Requests:
    """The histories of a file with a header: user, item and, if there is one, time, else the order of the rows.

    items: the rows of items.parquet. A row without an item only names a user. Users come in the order of their first
    row. Items that the dataset does not have are refused (InputError), or left out if `ignore_unknown`.
    """
    table = _open("--histories", path, wanted)
    if not table.header:
        raise InputError(f"--histories {path}: has no header: make its first row user,item or user,item,time")
    columns = {"user": _column("user", table, USER, wanted.user), "item": _column("item", table, ITEM, wanted.item)}
    if (wanted.time and wanted.time in table.columns) or any(plain(name) in TIME for name in table.columns):
        columns["time"] = _column("time", table, TIME, wanted.time)
    elif others := [name for name in table.columns if name not in columns.values()]:
        print(
            f"--histories {table.name}: no column is known as the time ({', '.join(others)}): rows count in "
            "their order; set columns.time if one is",
            file=sys.stderr,
        )
    with TemporaryDirectory() as folder:
        rows = table.scan(columns, Path(folder) / "rows")
        ids = [id_as_text(rows, name, table.name).alias(name) for name in ("user", "item")]
        has_item = id_as_text(rows, "item", table.name) != ""
        dated = whole_numbers(rows.filter(has_item), "time", table.name) if "time" in columns else pl.col("row")
        events = rows.select("row", *ids, time=pl.when(has_item).then(dated)).collect()
    if "time" in columns:  # repeated rows count once, as in the stage `split`
        events = events.unique(["user", "item", "time"], keep="first", maintain_order=True)
    _refuse_none(events, table)
    if nameless := events.filter(pl.col("user") == "")["row"].to_list():
        raise InputError(f"{table.name}, row {nameless[0]}: the user is empty: fill it in, or remove the row")
    numbers = items.select(raw_id="raw_id", number="item")
    events = events.join(numbers, left_on="item", right_on="raw_id", how="left", maintain_order="left")
    strangers = events.filter(pl.col("number").is_null() & (pl.col("item") != ""))["item"]
    counted = f"in {len(strangers):,} of {events.height:,} rows"
    _refuse_unknown("--histories", table, strangers.unique(maintain_order=True), counted, ITEMS, ignore=ignore_unknown)
    ordered = (
        events.sort("time", "row").group_by(raw_id="user").agg(pl.col("row").min(), items=pl.col("number").drop_nulls())
    )
    return Requests.from_frame(ordered.sort("row"))


def _open(option: str, path: Path, wanted: Wanted) -> Table:
    if not path.is_file():
        raise InputError(f"{option} {path}: there is no such file")
    return open_table(path, PurePosixPath(path), wanted)


def _column(role: str, table: Table, known: set[str], given: str) -> str:
    return given if given and given in table.columns else find_column(role, table.columns, known, table.name)


def _refuse_none(rows: pl.DataFrame, table: Table) -> None:
    if rows.is_empty():
        raise InputError(f"{table.name} has no rows: nobody to recommend to")


def _refuse_unknown(option: str, table: Table, ids: pl.Series, counted: str, where: Path, *, ignore: bool) -> None:
    """Raise InputError, or with `ignore` say on stderr, which ids `where` does not have. counted: among how many."""
    if ids.is_empty():
        return
    named = ", ".join(ids[:NAMED]) + (" …" if len(ids) > NAMED else "")
    found = f"{option} {table.name}: {where} has no {named} ({len(ids):,} unknown ids {counted})"
    if not ignore:
        raise InputError(f"{found}: mend them, or add --ignore-unknown")
    print(f"{found}: ignored", file=sys.stderr)


def single(history: list[int]) -> Requests:
    """One user, without a name."""
    return Requests(pl.Series([""]), Histories(np.asarray(history, dtype=np.int64), np.asarray([0, len(history)])))
