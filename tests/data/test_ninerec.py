import re
import zipfile
from pathlib import Path

import polars as pl
import pytest

from stages.data.ninerec import cover_ids, read_items, scan_pairs, write_covers
from stages.errors import InputError


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("text", ["v1,u1,5\nv2,u1,6\n", "u1,v1,5\nu1,v2,6\n"])
def test_either_column_order_gives_the_same_interactions(tmp_path: Path, text: str) -> None:
    frame = scan_pairs(write(tmp_path / "x_pair.csv", text), pl.Series(["v1", "v2", "v3"])).collect()
    assert frame.columns == ["raw_user", "raw_item", "timestamp"]
    assert frame.rows() == [("u1", "v1", 5), ("u1", "v2", 6)]


def test_ids_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    frame = scan_pairs(write(tmp_path / "x_pair.csv", "007,12,-5\r\n08,12,6"), pl.Series(["007", "08"])).collect()
    assert frame.rows() == [("12", "007", -5), ("12", "08", 6)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("v1,u1,5\nv9,u2,6\n", "neither column holds only items of the item file (column 1 has 'v9', column 2 'u1')"),
        ("v1,u1,5\nv1,u1,noon\n", ":2: timestamp 'noon' is not an integer"),
        ("v1,u1,5\nv1,u1,1.5\n", ":2: timestamp '1.5'"),
        ("v1,u1,5\nv1,u1,\n", ":2: timestamp ''"),
        ("v1,u1,5\nv1,u1,99999999999999999999\n", ":2: timestamp"),
        ("v1,u1,5\nv1,u1\n", ":2: 2 columns"),
        ("v1,u1,5\nv1,u1,6,7\n", ":2: 4 columns"),
        ("v1,u1\nv1,u2\n", ":1: 2 columns"),
        ("v1,u1,5\n,u1,6\n", ":2: an id is empty"),
        ("", "is empty"),
    ],
)
def test_a_bad_interaction_is_named_with_file_and_line(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(InputError, match="x_pair.csv.*" + re.escape(fault)) as caught:
        scan_pairs(write(tmp_path / "x_pair.csv", text), pl.Series(["v1"]))
    assert "\n" not in str(caught.value)


def test_titles_with_commas_or_quotes_and_empty_titles_are_unchanged(tmp_path: Path) -> None:
    text = 'v1,"红,烧","He said ""hi"", twice"\nv2,,\nv3,null,NA\n\n'
    frame = read_items(write(tmp_path / "x_item.csv", text))
    assert frame.columns == ["raw_id", "title_zh", "title_en"]
    assert frame.rows() == [("v1", "红,烧", 'He said "hi", twice'), ("v2", "", ""), ("v3", "null", "NA")]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"v1,a,b\nv1,c,d\n", ":2: item 'v1' is there twice"),
        (b"v1,a,b\nv2,c\n", ":2: 2 columns"),
        (b'v1,"a\nb",c\nv2,a,b,c\n', ":3: 4 columns"),
        (b"v1,a,b\n,c,d\n", ":2: the item id is empty"),
        (b'v1,a,b\nv2,"c"x,d\n', ":2: "),
        (b"v1,\xff,b\n", "not UTF-8"),
        (b"", "has no items"),
    ],
)
def test_a_bad_item_is_named_with_file_and_line(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "x_item.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match="x_item.csv.*" + re.escape(fault)):
        read_items(path)


def test_a_missing_file_names_the_stage_that_writes_it(tmp_path: Path) -> None:
    for read in (read_items, lambda path: scan_pairs(path, pl.Series(["v1"]))):
        with pytest.raises(InputError, match="gone.csv is missing: run `dvc repro download`"):
            read(tmp_path / "gone.csv")


def test_covers_are_written_with_a_fixed_date_and_found_by_item_id(tmp_path: Path) -> None:
    path = tmp_path / "x_cover.zip"
    write_covers(path, [("v1.jpg", b"one"), ("v2.5.jpg", b"two")])
    assert cover_ids(path) == {"v1", "v2.5"}
    with zipfile.ZipFile(path) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert cover_ids(tmp_path / "none.zip") == set()
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match="x_cover.zip is damaged"):
        cover_ids(path)
