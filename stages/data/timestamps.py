"""Convert timestamps (seconds, milliseconds, floats, ISO 8601 dates) to whole numbers in the same order."""

import polars as pl

from stages.errors import InputError

MICRO = 1_000_000
MOST = 9e18  # below the largest int64
DATES = ("%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")


def whole_numbers(rows: pl.LazyFrame, column: str, file: str) -> pl.Expr:
    """An expression that gives `column` as int64.

    Whole numbers are not changed, whatever their unit. Numbers with a fraction become millionths; dates become
    microseconds since 1970, in UTC if they have no offset. All values of a column must have one form. rows: also has
    the column `row`, the row's number. Raises InputError with the first row that does not have the form of most.
    """
    dtype = rows.collect_schema()[column]
    value = pl.col(column)
    if isinstance(dtype, pl.Datetime | pl.Date):
        ways = [value.cast(pl.Datetime("us")).cast(pl.Int64)]
    elif dtype.is_integer():
        ways = [value.cast(pl.Int64, strict=False)]
    elif dtype.is_float():
        ways = [_whole_floats(value), _fractions(value)]
    elif dtype == pl.String:
        ways = _from_text(value.str.strip_chars())
    else:
        raise InputError(f"{file}: the time column {column} is of type {dtype}: make it numbers or dates")
    unread = []
    for way in ways:  # one after another: the first is right for most files, and dates are slow to parse
        unread.append(int(rows.select(way.is_null().sum()).collect(engine="streaming").item()))
        if not unread[-1]:
            return way
    best = min(range(len(ways)), key=lambda n: unread[n])
    row, found = rows.filter(ways[best].is_null()).select("row", column).first().collect(engine="streaming").row(0)
    fault = "a number or an ISO 8601 date" if unread[best] == max(unread) else "written as the others are"
    raise InputError(
        f"{file}, row {row}: timestamp {'' if found is None else str(found)!r:.40} is not {fault}: mend it, or set "
        "columns.time if this is not the time"
    )


def _from_text(text: pl.Expr) -> list[pl.Expr]:
    """The forms that text may have, in the order in which they are tried."""
    number = text.cast(pl.Float64, strict=False)
    iso = (
        text.str.replace(r"^(\d{4})/(\d{1,2})/(\d{1,2})", "${1}-${2}-${3}")
        .str.replace(r"^(\S{8,10}) ", "${1}T")
        .str.replace(r"(?:Z| ?UTC)$", "+00:00")
    )
    dates = [iso.str.to_datetime(form, strict=False, time_unit="us").cast(pl.Int64) for form in DATES]
    return [text.cast(pl.Int64, strict=False), _whole_floats(number), _fractions(number), *dates]


def _whole_floats(number: pl.Expr) -> pl.Expr:
    whole = number.is_finite() & (number == number.floor()) & (number.abs() < MOST)
    return pl.when(whole).then(number).cast(pl.Int64, strict=False)


def _fractions(number: pl.Expr) -> pl.Expr:
    fits = number.is_finite() & (number.abs() < MOST / MICRO)
    return pl.when(fits).then((number * MICRO).round()).cast(pl.Int64, strict=False)
