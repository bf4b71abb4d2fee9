"""The types that ids and titles may have in a Parquet file."""

from datetime import date
from pathlib import Path, PurePosixPath

import polars as pl
import pytest

from stages.data.columns import InteractionColumns, ItemColumns, Wanted
from stages.data.interactions import scan_interactions
from stages.data.items import load_items
from stages.data.tables import open_table
from stages.errors import InputError


def load(folder: Path, ids: pl.Series, titles: pl.Series) -> list[tuple[str, str, str]]:
    """The items of a Parquet file with the columns `sku` and `label`."""
    file = folder / "items.parquet"
    pl.DataFrame({"sku": ids, "label": titles}).write_parquet(file)
    table = open_table(file, PurePosixPath("items.parquet"), Wanted())
    return load_items(table, ItemColumns("sku", "label", "label"), folder / "spool").rows()


@pytest.mark.parametrize(("titles", "expected"), [
    (pl.Series(["tea", None]), ("tea", "")),
    (pl.Series(["tea", None], dtype=pl.Categorical), ("tea", "")),
    (pl.Series(["tea", None], dtype=pl.Enum(["tea"])), ("tea", "")),
    (pl.Series([1984, None]), ("1984", "")),
    (pl.Series([None, None]), ("", "")),
])  # fmt: skip
def test_titles_of_text_or_whole_numbers_are_read(tmp_path: Path, titles: pl.Series, expected: tuple[str, str]) -> None:
    first, second = expected
    assert load(tmp_path, pl.Series(["v1", "v2"]), titles) == [("v1", first, first), ("v2", second, second)]


OTHER_TYPES = [
    ([["a", "b"]], "List(String)"),
    ([{"a": "b"}], "Struct({'a': String})"),
    ([b"Am\xe9lie"], "Binary"),
    ([float("nan")], "Float64"),
    ([1984.0], "Float64"),
    ([True], "Boolean"),
    ([date(2020, 1, 1)], "Date"),
]


@pytest.mark.parametrize(("values", "dtype"), OTHER_TYPES)
def test_ids_and_titles_of_other_types_are_refused(tmp_path: Path, values: list, dtype: str) -> None:
    text, other = pl.Series(["v1"]), pl.Series(values)
    with pytest.raises(InputError) as caught:
        load(tmp_path, text, other)
    assert str(caught.value) == f"items.parquet: titles in the column label are of type {dtype}: make them text"
    with pytest.raises(InputError) as caught:
        load(tmp_path, other, text)
    assert str(caught.value) == (
        f"items.parquet: ids in the column sku are of type {dtype}: make them text or whole numbers"
    )


@pytest.mark.parametrize(("values", "dtype"), OTHER_TYPES)
def test_titles_of_other_types_are_refused_in_the_interactions_too(tmp_path: Path, values: list, dtype: str) -> None:
    file = tmp_path / "log.parquet"
    pl.DataFrame({"user": ["u1"], "item": ["v1"], "time": [5], "label": values}).write_parquet(file)
    table = open_table(file, PurePosixPath("log.parquet"), Wanted())
    with pytest.raises(InputError) as caught:
        scan_interactions(table, InteractionColumns("user", "item", "time", "label"), None, tmp_path / "spool")
    assert str(caught.value) == f"log.parquet: titles in the column label are of type {dtype}: make them text"
