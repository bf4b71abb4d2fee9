"""NineRec's file layout: `NAME_pair.csv`, `NAME_item.csv` (both without a header) and our `NAME_cover.zip`."""

import csv
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import polars as pl

from stages.errors import InputError

FIXED_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that zip knows: the same covers give the same bytes


def scan_pairs(path: Path, item_ids: pl.Series) -> pl.LazyFrame:
    """The checked interactions as a lazy scan, in file order: `raw_user` str, `raw_item` str, `timestamp` int64.

    NineRec's README and its code disagree on which of the first two columns is the user: the item column is the one
    whose values are all in `item_ids` (if both are, the first one, as in NineRec's code).
    Raises InputError with the line of a malformed row, or when neither column holds items.
    """
    _must_exist(path)
    known = item_ids.implode()
    try:
        scan = pl.scan_csv(path, has_header=False, infer_schema=False)
        if len(names := scan.collect_schema().names()) != 3:
            raise _pair_fault(path) or InputError(f"{path}: not 3 columns")
        scan = scan.rename(dict(zip(names, ("first", "second", "timestamp"), strict=True)))
        scan = scan.with_columns(pl.col("timestamp").cast(pl.Int64, strict=False))
        any_gap = pl.any_horizontal(pl.all().is_null().any()).alias("gap")
        are_items = [pl.col(name).is_in(known).all() for name in ("first", "second")]
        gap, first_is_item, second_is_item = scan.select(any_gap, *are_items).collect(engine="streaming").row(0)
    except (pl.exceptions.ComputeError, pl.exceptions.NoDataError) as error:
        raise _pair_fault(path) or InputError(f"{path}: {' '.join(str(error).split())}") from error
    if gap:
        raise _pair_fault(path) or InputError(f"{path}: an empty value in an interaction")
    if first_is_item:
        return scan.select(raw_user="second", raw_item="first", timestamp="timestamp")
    if second_is_item:
        return scan.select(raw_user="first", raw_item="second", timestamp="timestamp")
    strangers = [_first_stranger(scan.select(name), known) for name in ("first", "second")]
    raise InputError(
        f"{path}: neither column holds only items of the item file (column 1 has {strangers[0]!r}, "
        f"column 2 {strangers[1]!r}): use the two files of one dataset"
    )


def _first_stranger(ids: pl.LazyFrame, known: pl.Series) -> str:
    stranger: str = ids.filter(~pl.first().is_in(known)).first().collect(engine="streaming").item()
    return stranger


def read_items(path: Path) -> pl.DataFrame:
    """The items in file order: `raw_id`, `title_zh`, `title_en`, all str; an empty title stays ''.

    Raises InputError with the line of a row that has not three columns, an empty id, or an id seen before.
    """
    _must_exist(path)
    rows: list[list[str]] = []
    seen: set[str] = set()
    for line, row in _rows(path):
        if len(row) != 3:
            raise InputError(f"{path}:{line}: {len(row)} columns, not 3 (id, Chinese title, English title)")
        if not row[0]:
            raise InputError(f"{path}:{line}: the item id is empty")
        if row[0] in seen:
            raise InputError(f"{path}:{line}: item {row[0]!r} is there twice: remove one")
        seen.add(row[0])
        rows.append(row)
    if not rows:
        raise InputError(f"{path} has no items: download it again")
    return pl.DataFrame(rows, schema=dict.fromkeys(("raw_id", "title_zh", "title_en"), pl.String), orient="row")


def cover_ids(path: Path) -> set[str]:
    """Raw ids of the items that have a cover in the zip; empty when there is no zip (a dataset without covers)."""
    if not path.exists():
        return set()
    try:
        with zipfile.ZipFile(path) as archive:
            return {PurePosixPath(name).stem for name in archive.namelist() if name.endswith(".jpg")}
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} is damaged ({error}): run `dvc repro -f download`") from error


def write_covers(path: Path, covers: Iterable[tuple[str, bytes]]) -> None:
    """Write a zip of (member name, content), uncompressed and with a fixed date: same covers, same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in covers:
            member = zipfile.ZipInfo(name, FIXED_DATE)
            member.create_system = 3  # or Windows would write other bytes
            archive.writestr(member, content)


def _rows(path: Path) -> Iterable[tuple[int, list[str]]]:
    """Each row that is not blank, as (line number of its end, fields)."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason} at byte {error.start})") from error
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: {error}: check the quotes") from error


def _pair_fault(path: Path) -> InputError | None:
    """The first faulty row, by a slow reader that knows line numbers; None when every row is right."""
    empty = True
    for line, row in _rows(path):
        empty = False
        if len(row) != 3:
            return InputError(f"{path}:{line}: {len(row)} columns, not 3 (item, user, timestamp)")
        if not row[0] or not row[1]:
            return InputError(f"{path}:{line}: an id is empty")
        if not _is_int64(row[2]):
            return InputError(f"{path}:{line}: timestamp {row[2]!r:.40} is not an integer")
    return InputError(f"{path} is empty: download it again") if empty else None


def _is_int64(text: str) -> bool:
    digits = text.removeprefix("-").removeprefix("+")
    return digits.isascii() and digits.isdigit() and -(2**63) <= int(text) < 2**63


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path} is missing: run `dvc repro download` to make it")
