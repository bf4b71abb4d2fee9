"""Times in one column: which forms are read, which are refused."""

import polars as pl
import pytest

from stages.data.timestamps import whole_numbers
from stages.errors import InputError

DAY = 1_577_836_800  # 2020-01-01 in seconds


def read(values: list) -> list[int]:
    rows = pl.LazyFrame({"row": range(1, len(values) + 1), "time": values})
    return rows.select(whole_numbers(rows, "time", "log.csv")).collect().to_series().to_list()


def failure(values: list) -> str:
    with pytest.raises(InputError) as caught:
        read(values)
    return str(caught.value)


@pytest.mark.parametrize(("text", "seconds"), [
    ("2020-01-01T10:00Z", 36_000),
    ("2020-01-01 10:00:00+00", 36_000),
    ("2020-01-01 10:00:00.5+00", 36_000.5),
    ("2020-01-01 10:00:00-08", 64_800),
    ("2020-01-01T10:00+01:00", 32_400),
    ("2020-01-01T10:00:00-0530", 55_800),
    ("20200101T100000Z", 36_000),
    ("20200101T100000", 36_000),
    ("2020-01-01 10:00", 36_000),
    ("2020/1/1 10:00:00", 36_000),
    ("2020-1-1", 0),
])  # fmt: skip
def test_iso_8601_is_read_in_utc(text: str, seconds: float) -> None:
    assert read([text]) == [(DAY + seconds) * 10**6]


@pytest.mark.parametrize(
    "text", ["20-12-19", "20-12-19 10:00:00", "202-01-05", "+2020-12-19", "20/12/19", "19.12.2020"]
)
def test_a_date_whose_year_is_not_certain_is_refused(text: str) -> None:
    assert failure([text] * 3).startswith(f"log.csv, row 1: timestamp '{text}' is not a number or an ISO 8601 date")


@pytest.mark.parametrize("other", [0, -1, 16 * 10**11, 16 * 10**14])
@pytest.mark.parametrize("kind", [pl.Int64, pl.Float64, pl.String])
def test_a_date_in_another_unit_or_a_sign_of_no_date_is_named(other: int, kind: pl.DataType) -> None:
    values = pl.Series([1_600_000_000, 1_600_000_007, other, 1_600_000_014]).cast(kind).to_list()
    assert failure(values) == (
        f"log.csv, row 3: timestamp '{values[2]}' is no date in the unit of the others (seconds, milliseconds, …): "
        "mend it, or remove the row"
    )


def test_a_sign_of_no_date_in_the_first_row_or_among_fractions_is_named() -> None:
    assert failure([0, 1_600_000_000]).startswith("log.csv, row 1: timestamp '0' is no date")
    assert failure(["1600000000.5", "1600000001000.5"]).startswith("log.csv, row 2: timestamp '1600000001000.5' is no")


@pytest.mark.parametrize("values", [
    [3, 1, 2],
    [0, 1, 2],
    [-5, -3],
    [0, 0],
    [-200_000_000, 50_000_000, 200_000_000],  # seconds from 1963 to 1976
    [0, 10**9, 60 * 10**9, 3600 * 10**9],  # nanoseconds since a start
    [20_200_101, 20_201_231],
    [999_999_999, 1_000_000_000],  # seconds before and after 2001-09-09
    [999_999_999_999, 1_000_000_000_000],
])  # fmt: skip
def test_whole_numbers_of_one_unit_stay_as_they_are(values: list[int]) -> None:
    assert read(values) == values
