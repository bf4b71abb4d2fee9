"""Tables that are damaged or written in an unusual way: read whole, or refused by one line."""

from pathlib import Path, PurePosixPath

import polars as pl
import pytest

from stages.data.columns import Wanted
from stages.data.tables import open_table
from stages.errors import InputError


def read(file: Path, *columns: str) -> list[tuple]:
    """The rows of some columns of a file."""
    table = open_table(file, PurePosixPath(file.name), Wanted())
    spool = file.with_name("spool")
    return table.scan({name: name for name in columns}, spool).select(columns).collect().rows()


def failure(file: Path, *columns: str) -> str:
    with pytest.raises(InputError) as caught:
        read(file, *columns)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("folder", ["data[12]", "data*", "item_id=7"])
@pytest.mark.parametrize("kind", ["parquet", "ndjson", "csv"])
def test_a_path_is_no_pattern_and_no_partition(tmp_path: Path, folder: str, kind: str) -> None:
    for name, user in ((folder, "right"), ("data1", "wrong")):
        (tmp_path / name).mkdir()
        rows = pl.DataFrame({"user_id": [user], "item_id": ["v1"]})
        getattr(rows, f"write_{kind}")(tmp_path / name / f"Shop.{kind}")
    assert read(tmp_path / folder / f"Shop.{kind}", "user_id", "item_id") == [("right", "v1")]
