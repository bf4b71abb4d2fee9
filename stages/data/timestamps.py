"""Convert timestamps (seconds, milliseconds, floats, ISO 8601 dates) to whole numbers in the same order."""

import polars as pl

from stages.errors import InputError

MICRO = 1_000_000
MOST = 9e18  # below the largest int64
DATES = ("%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M%z", "%Y-%m-%dT%H:%M", "%Y-%m-%d")


def whole_numbers(rows: pl.LazyFrame, column: str, file: str) -> pl.Expr:
    """An expression that gives `column` as int64.

    Whole numbers are not changed, whatever their unit. Numbers with a fraction become millionths; dates become
    microseconds since 1970, in UTC if they have no offset. All values of a column must have one form. rows: also has
    the column `row`, the row's number. Raises InputError with the first row that does not have the form of most, or
    the unit of the others.
    """
    dtype = rows.collect_schema()[column]
    value = pl.col(column)
    numbers: list[pl.Expr] = []
    dates: list[pl.Expr] = []
    if isinstance(dtype, pl.Datetime | pl.Date):
        dates = [value.cast(pl.Datetime("us")).cast(pl.Int64)]
    elif dtype.is_integer():
        numbers = [value.cast(pl.Int64, strict=False)]
    elif dtype.is_float():
        numbers = _from_floats(value)
    elif dtype == pl.String:
        text = value.str.strip_chars()
        numbers = [text.cast(pl.Int64, strict=False), *_from_floats(text.cast(pl.Float64, strict=False))]
        dates = _from_iso(text)
    else:
        raise InputError(f"{file}: the time column {column} is of type {dtype}: make it numbers or dates")
    ways, unread = [*numbers, *dates], []
    for way in ways:  # one after another: the first is right for most files, and dates are slow to parse
        unread.append(int(rows.select(way.is_null().sum()).collect(engine="streaming").item()))
        if not unread[-1]:
            if len(unread) <= len(numbers):
                _refuse_other_units(rows, way, column, file)
            return way
    best = min(range(len(ways)), key=lambda n: unread[n])
    row, found = rows.filter(ways[best].is_null()).select("row", column).first().collect(engine="streaming").row(0)
    fault = "a number or an ISO 8601 date" if unread[best] == max(unread) else "written as the others are"
    raise InputError(
        f"{file}, row {row}: timestamp {'' if found is None else str(found)!r:.40} is not {fault}: mend it, or set "
        "columns.time if this is not the time"
    )


def _refuse_other_units(rows: pl.LazyFrame, number: pl.Expr, column: str, file: str) -> None:
    """Raise InputError if all positive numbers are dates of 1973 to 2286 but in two units, or if others are there.

    Such dates have 9 or 10 digits in seconds, 12 or 13 in milliseconds, and so on. Where others are among the positive
    numbers, the column may count events, or the time since a start: there any number may be right.
    """
    digits = number.cast(pl.Float64).log10().floor() + 1  # NaN or -inf if not positive: not equal to any unit
    is_date, unit = (digits >= 9) & (digits % 3 != 2), digits // 3
    dates = rows.filter(number > 0).select(all=is_date.all(), first=unit.first()).collect(engine="streaming")
    all_are_dates, first_unit = dates.row(0)
    if first_unit is None or not all_are_dates:
        return
    for row, found in rows.filter(unit != first_unit).select("row", column).first().collect(engine="streaming").rows():
        raise InputError(
            f"{file}, row {row}: timestamp {str(found)!r:.40} is no date in the unit of the others (seconds, "
            "milliseconds, …): mend it, or remove the row"
        )


def _from_iso(text: pl.Expr) -> list[pl.Expr]:
    """The forms that dates may have, in the order in which they are tried."""
    iso = (
        text.str.replace(r"^(\d{4})/(\d{1,2})/(\d{1,2})", "${1}-${2}-${3}")
        .str.replace(r"^(\d{4})(\d{2})(\d{2})T(\d{2})(\d{2})(\d{2})", "${1}-${2}-${3}T${4}:${5}:${6}")
        .str.replace(r"^(\S{8,10}) ", "${1}T")
        .str.replace(r"(?:Z| ?UTC)$", "+00:00")
        .str.replace(r"(:\S+[+-]\d{2})$", "${1}:00")
        .str.extract(r"^(\d{4}-.+)$")  # else 20-12-19 would be a day of the year 20
    )
    return [iso.str.to_datetime(form, strict=False, time_unit="us").cast(pl.Int64) for form in DATES]


def _from_floats(number: pl.Expr) -> list[pl.Expr]:
    return [_whole_floats(number), _fractions(number)]


def _whole_floats(number: pl.Expr) -> pl.Expr:
    whole = number.is_finite() & (number == number.floor()) & (number.abs() < MOST)
    return pl.when(whole).then(number).cast(pl.Int64, strict=False)


def _fractions(number: pl.Expr) -> pl.Expr:
    fits = number.is_finite() & (number.abs() < MOST / MICRO)
    return pl.when(fits).then((number * MICRO).round()).cast(pl.Int64, strict=False)
