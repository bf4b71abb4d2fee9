"""Timestamps as people write them to whole numbers that sort alike: seconds, milliseconds, floats, ISO 8601 dates."""

import polars as pl

from stages.errors import InputError

MICRO = 1_000_000
MOST = 9e18  # below the largest int64
DATES = ("%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")


def whole_numbers(rows: pl.LazyFrame, column: str, file: str) -> pl.Expr:
    """An expression that gives `column` as int64. Whole numbers stay as they are, in whatever unit.

    Numbers with a fraction and dates become microseconds (of a date: since 1970, in UTC if it has no offset).
    rows: with `row`, the number of the row. Raises InputError with the first row whose value fits in with no reading
    that all others fit.
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
    unread = (
        rows.select(way.is_null().sum().alias(str(n)) for n, way in enumerate(ways)).collect(engine="streaming").row(0)
    )
    best = min(range(len(ways)), key=lambda n: unread[n])
    if unread[best]:
        fault = rows.filter(ways[best].is_null()).select("row", column).first().collect(engine="streaming").row(0)
        text = "" if fault[1] is None else str(fault[1])
        raise InputError(
            f"{file}, row {fault[0]}: timestamp {text!r:.40} is not "
            f"{'a number or an ISO 8601 date' if unread[best] == max(unread) else 'written as the others are'}: "
            "mend it, or set columns.time if this is not the time"
        )
    return ways[best]


def _from_text(text: pl.Expr) -> list[pl.Expr]:
    """What text may be, the first that fits all values counts."""
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
