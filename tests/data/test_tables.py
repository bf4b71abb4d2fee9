"""Tables that are damaged or written in an unusual way: read whole, or refused by one line."""

import json
from collections.abc import Callable
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


@pytest.mark.parametrize(("line", "fault"), [
    (b"hello", "line 2 is not JSON (Expecting value: line 1 column 1 (char 0)): one object a line"),
    (b'{"item_id": "v2", "tit', "line 2 is not JSON (Unterminated string"),
    ('{"item_id": "v2", "title": "Amélie"}'.encode("latin-1"), "line 2 is not UTF-8: save it as UTF-8"),
    ('{"item_id": "v2", "other": "Amélie"}'.encode("latin-1"), "line 2 is not UTF-8: save it as UTF-8"),
    (b'{"item_id": "v2", "title": NaN}', "line 2 is not JSON (NaN: write null): one object a line"),
    (b'{"item_id": "v2"},', "line 2 is not JSON (Extra data"),
    (b'{"item_id": "v2"}{"item_id": "v3"}', "line 2 is not JSON (Extra data"),
    (b"5", "line 2: not a JSON object: write one on each line"),
    (b"[]", "line 2: not a JSON object"),
    (b"null", "line 2: not a JSON object"),
])  # fmt: skip
@pytest.mark.parametrize("position", ["middle", "end"])
def test_a_bad_line_of_json_is_named(tmp_path: Path, line: bytes, fault: str, position: str) -> None:
    good = b'{"item_id": "v1", "title": "tea"}\n'
    file = tmp_path / "Shop.jsonl"
    file.write_bytes(good + line + (b"\n" + good if position == "middle" else b""))
    assert failure(file, "item_id").startswith(f"Shop.jsonl, {fault}")


def test_json_without_any_good_line_is_named_by_its_first(tmp_path: Path) -> None:
    (tmp_path / "Shop.jsonl").write_bytes('{"title": "Amélie"}\n'.encode("latin-1") * 3)
    assert failure(tmp_path / "Shop.jsonl") == "Shop.jsonl, line 1 is not UTF-8: save it as UTF-8"


@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_is_not_json_lines(tmp_path: Path, indent: int | None) -> None:
    (tmp_path / "Shop.json").write_text(json.dumps([{"item_id": "v1"}, {"item_id": "v2"}], indent=indent))
    assert failure(tmp_path / "Shop.json") == "Shop.json is not JSON Lines: write one JSON object on each line"


@pytest.mark.parametrize("first", [{"other": "x" * 6000}, {"other": "x" * 100_000}, {}])
def test_a_key_that_comes_late_in_a_file_of_json_is_a_column(tmp_path: Path, first: dict[str, str]) -> None:
    lines = [{"item_id": f"v{n}"} | first for n in range(120)] + [{"item_id": "late", "title": "tea"}]
    (tmp_path / "Shop.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert read(tmp_path / "Shop.jsonl", "item_id", "title")[-2:] == [("v119", None), ("late", "tea")]


@pytest.mark.parametrize("value", [["a", "b"], {"$oid": "5"}])
def test_a_list_or_an_object_of_json_is_no_text(tmp_path: Path, value: object) -> None:
    lines = [{"item_id": "v1", "title": "[a]"}, {"item_id": "v2", "title": value}, {"item_id": "v3", "title": "c"}]
    (tmp_path / "Shop.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert failure(tmp_path / "Shop.jsonl", "item_id", "title") == (
        "Shop.jsonl, line 2: title is a list or an object: make it text or a number"
    )
    assert read(tmp_path / "Shop.jsonl", "item_id") == [("v1",), ("v2",), ("v3",)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".dat"])
@pytest.mark.parametrize("rows", [3, 30_000])  # in the sample, and beyond it
def test_line_ends_of_a_carriage_return_alone_are_refused(tmp_path: Path, suffix: str, rows: int) -> None:
    separator = {".csv": ",", ".tsv": "\t", ".dat": "::"}[suffix]
    line = separator.join(["u1", "v1", "5"])
    for end in ("", "\r", "\n"):
        (tmp_path / f"Shop{suffix}").write_text("\r".join([line] * rows) + end, newline="")
        assert failure(tmp_path / f"Shop{suffix}") == (
            f"Shop{suffix} cannot be split into lines (line ends \\r alone?): save it with \\n as line ends"
        )


def test_a_header_longer_than_the_sample_is_read(tmp_path: Path) -> None:
    names = ["item_id", *(f"feature_number_{n}" for n in range(6000))]
    (tmp_path / "Shop.csv").write_text(",".join(names) + "\n" + ",".join(["v1", *["0"] * 6000]) + "\n")
    assert read(tmp_path / "Shop.csv", "item_id", "feature_number_5999") == [("v1", "0")]


@pytest.mark.parametrize("damage", [
    lambda data: data[:-1],
    lambda data: data + b"\x00\xd8\x41\x00",  # half of a surrogate pair
])  # fmt: skip
def test_damaged_utf_16_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    (tmp_path / "Shop.csv").write_bytes(damage("item_id,title\nv1,茶\n".encode("utf-16")))
    assert failure(tmp_path / "Shop.csv") == "Shop.csv is damaged UTF-16: get it anew, or save it as UTF-8"


@pytest.mark.parametrize(("separator", "suffix"), [(",", ".csv"), ("::", ".dat")])
def test_a_byte_order_mark_of_a_second_file_is_named(tmp_path: Path, separator: str, suffix: str) -> None:
    row = separator.join(["v1", "tea"]) + "\n"
    (tmp_path / f"Shop{suffix}").write_text(f"\ufeff{row}{row}\ufeff{row}")
    assert failure(tmp_path / f"Shop{suffix}", "1") == (
        f"Shop{suffix}: Row #3: a byte order mark (a second file from here?): mend the row (or its quotes)"
    )


def test_the_line_that_excel_adds_is_named(tmp_path: Path) -> None:
    (tmp_path / "Shop.csv").write_text("sep=;\nuser;item;time\nu1;v1;1\n")
    assert failure(tmp_path / "Shop.csv") == "Shop.csv: its first line is Excel's `sep=;`: remove that line"


def test_movielens_files_in_another_encoding_than_latin_1_are_refused(tmp_path: Path) -> None:
    (tmp_path / "movies.dat").write_bytes("1::Amélie\n2::红烧\n".encode("gbk"))
    assert failure(tmp_path / "movies.dat") == "movies.dat is neither UTF-8 nor Latin-1: save it as UTF-8"


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_damage_amid_a_parquet_file_is_named(tmp_path: Path, place: float) -> None:
    file = tmp_path / "Shop.parquet"
    rows = pl.DataFrame({"item_id": [f"{n:x}" for n in range(10_000)]})
    rows.write_parquet(file, compression="uncompressed")
    data = bytearray(file.read_bytes())
    start = int(len(data) * place)
    data[start : start + 40] = b"\xff" * 40
    file.write_bytes(data)
    message = failure(file, "item_id")
    assert message.startswith("Shop.parquet is a damaged Parquet file (parquet: File out of specification: ")
    assert message.endswith("): get it anew")


@pytest.mark.parametrize("blank", ["\n", "\r\n\r\n", "  \n\t\n"])
@pytest.mark.parametrize("separator", [",", "::"])
def test_blank_lines_before_the_header_are_no_rows(tmp_path: Path, blank: str, separator: str) -> None:
    lines = "item_id,title\nv1,tea\nv2,pot\n".replace(",", separator)
    (tmp_path / "Shop.csv").write_text(blank + lines, newline="")
    assert read(tmp_path / "Shop.csv", "item_id", "title") == [("v1", "tea"), ("v2", "pot")]
