from pathlib import Path

import polars as pl
import pytest

from stages.data.ninerec import ITEMS, PAIRS, read_items, scan_pairs, write_items, write_pairs
from stages.errors import InputError

ODD = ["a", "", " ", "NA", 'say "hi"', "a,b", "a\nb", "a\rb", "a\r\nb", "\x00", "\ufeff", "007", "-1", "\u2028", "'"]


def test_what_is_written_is_read_again_whatever_the_text(tmp_path: Path) -> None:
    ids = [f"{text}{number}" for number, text in enumerate(ODD)]
    items = pl.DataFrame({"raw_id": ids, "title_zh": ODD, "title_en": reversed(ODD)}, schema=ITEMS)
    pairs = pl.DataFrame({"raw_item": ids, "raw_user": list(reversed(ids)), "timestamp": range(len(ids))}, schema=PAIRS)
    write_items(tmp_path / "x_item.csv", items)
    write_pairs(tmp_path / "x_pair.csv", pairs.lazy())
    assert read_items(tmp_path / "x_item.csv").equals(items)
    read = scan_pairs(tmp_path / "x_pair.csv").collect()
    assert read.columns == ["raw_user", "raw_item", "timestamp"]
    assert read.select(*PAIRS).equals(pairs)


def test_the_files_are_ninerec_s(tmp_path: Path) -> None:
    items = pl.DataFrame({"raw_id": ["v1", "v2"], "title_zh": ["红,烧", ""], "title_en": ['a "b"', ""]}, schema=ITEMS)
    write_items(tmp_path / "x_item.csv", items)
    assert (tmp_path / "x_item.csv").read_text() == 'v1,"红,烧","a ""b"""\nv2,,\n'
    pairs = pl.LazyFrame({"raw_user": ["u1"], "timestamp": [-5], "raw_item": ["v1"]})
    write_pairs(tmp_path / "x_pair.csv", pairs)
    assert (tmp_path / "x_pair.csv").read_text() == "v1,u1,-5\n"


def test_a_missing_file_names_the_stage_that_writes_it(tmp_path: Path) -> None:
    for read in (read_items, scan_pairs):
        with pytest.raises(InputError, match="gone.csv is missing: run `dvc repro download`"):
            read(tmp_path / "gone.csv")
