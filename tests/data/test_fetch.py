"""Datasets as people have them, each written by the library that people use, against one expected result."""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from stages.data.columns import Wanted
from stages.data.fetch import fetch
from stages.data.ninerec import read_items, scan_pairs
from stages.errors import InputError

START = 1_600_000_000
PAIRS = [(f"u{n % 4}", f"v{n % 5 + 1}", START + 7 * n) for n in range(20)]  # user, item, time
TITLES = {"v1": ("红,烧", 'a "big" pot'), "v2": ("", "tea"), "v3": ("茶", ""), "v4": ("壶", "pot"), "v5": ("帽", "hat")}
BOTH = [(item, zh, en) for item, (zh, en) in TITLES.items()]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def read(source: Path, dataset: str = "Shop", **columns: str) -> tuple[list[tuple], dict[str, tuple[str, str]]]:
    """What `download` writes of a source: (user, item, time) rows, and {item: titles}."""
    folder = source.parent / "out"
    fetch(dataset, str(source), "", Wanted(**columns), folder)
    assert not [path for path in folder.iterdir() if path.is_dir()]
    pairs = scan_pairs(folder / f"{dataset}_pair.csv").collect().rows()
    return pairs, {item: (zh, en) for item, zh, en in read_items(folder / f"{dataset}_item.csv").rows()}


def failure(source: Path, dataset: str = "Shop", **columns: str) -> str:
    with pytest.raises(InputError) as caught:
        read(source, dataset, **columns)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def frame(user: str = "user_id", item: str = "item_id", time: str = "timestamp") -> pl.DataFrame:
    return pl.DataFrame(PAIRS, schema=[user, item, time], orient="row")


def items_frame(item: str = "item_id", zh: str = "title_zh", en: str = "title_en") -> pl.DataFrame:
    return pl.DataFrame(BOTH, schema=[item, zh, en], orient="row")


def csv_text(table: pl.DataFrame, **style: object) -> str:
    return table.write_csv(**style)  # type: ignore[call-overload, no-any-return]


def write_ninerec(source: Path, order: list[str] | None = None) -> None:
    (source / "Shop_pair.csv").write_text(csv_text(frame().select(order or pl.all()), include_header=False))
    (source / "Shop_item.csv").write_text(csv_text(items_frame(), include_header=False))


@pytest.mark.parametrize("order", [["user_id", "item_id", "timestamp"], ["item_id", "user_id", "timestamp"]])
def test_ninerec_s_files_are_read_in_either_order_of_columns(source: Path, order: list[str]) -> None:
    write_ninerec(source, order)
    assert read(source) == (PAIRS, TITLES)


@pytest.mark.parametrize("style", [
    {"separator": "\t"}, {"separator": ";"}, {"separator": "|"}, {"quote_style": "always"}, {"line_terminator": "\r\n"},
    {"include_bom": True}, {"include_header": False},
    {"separator": "\t", "quote_style": "always", "include_header": False},
    {"include_bom": True, "line_terminator": "\r\n", "quote_style": "always"},
])  # fmt: skip
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt"])
def test_delimited_text_is_read_in_any_style(source: Path, style: dict[str, object], suffix: str) -> None:
    (source / f"Shop_pair{suffix}").write_text(csv_text(frame(), **style), newline="")
    (source / f"Shop_item{suffix}").write_text(csv_text(items_frame(), **style), newline="")
    assert read(source) == (PAIRS, TITLES)


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: pa.compress(data, "zstd", asbytes=True)])
@pytest.mark.parametrize("suffix", [".gz", ".zst", ""])  # the first bytes tell, whatever the suffix says
def test_compressed_tables_are_read(source: Path, pack: Callable[[bytes], bytes], suffix: str) -> None:
    (source / f"Shop_pair.csv{suffix}").write_bytes(pack(csv_text(frame()).encode()))
    (source / f"Shop_item.csv{suffix}").write_bytes(pack(csv_text(items_frame()).encode()))
    assert read(source) == (PAIRS, TITLES)


def test_utf_16_with_a_byte_order_mark_is_read(source: Path) -> None:
    (source / "Shop_pair.csv").write_bytes(csv_text(frame(), separator="\t").encode("utf-16"))
    (source / "Shop_item.csv").write_bytes(csv_text(items_frame(), separator="\t").encode("utf-16"))
    assert read(source) == (PAIRS, TITLES)


def test_parquet_is_read_with_ids_of_text_or_whole_numbers(source: Path) -> None:
    numbered = frame().with_columns(pl.col("user_id").str.strip_prefix("u").cast(pl.UInt8))
    numbered.with_columns(pl.col("item_id").cast(pl.Categorical)).write_parquet(source / "log.parquet")
    items_frame().write_parquet(source / "catalogue.parquet")
    assert read(source) == ([(user[1:], item, time) for user, item, time in PAIRS], TITLES)
    numbered.cast({"user_id": pl.Float64}).write_parquet(source / "log.parquet")
    assert "ids in the column user_id are of type Float64" in failure(source)


def test_amazon_s_reviews_are_read_with_the_titles_of_the_second_file(source: Path) -> None:
    reviews = [
        {"rating": 5.0, "title": "Great!", "asin": "B9", "parent_asin": item, "user_id": user, "timestamp": time * 1000}
        for user, item, time in PAIRS
    ]
    meta = [
        {"main_category": "All", "title": en or None, "parent_asin": item, "images": [{"thumb": "x"}]}
        for item, _, en in BOTH
    ]
    for name, lines in (("Shop.jsonl", reviews), ("meta_Shop.jsonl", meta)):
        (source / name).write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    pairs, titles = read(source)
    assert pairs == [(user, item, time * 1000) for user, item, time in PAIRS]
    assert titles == {item: (en, en) for item, (_, en) in TITLES.items()}


def test_amazon_s_older_names_are_known(source: Path) -> None:
    lines = [{"reviewerID": u, "asin": i, "reviewTime": "09 13, 2009", "unixReviewTime": t} for u, i, t in PAIRS]
    (source / "reviews_Shop_5.json.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    assert read(source) == (PAIRS, dict.fromkeys([f"v{n}" for n in range(1, 6)], ("", "")))


def test_movielens_files_without_a_header_are_read_with_latin_1_titles(source: Path) -> None:
    rows = [(user[1:], item[1:], time) for user, item, time in PAIRS]
    (source / "ratings.dat").write_text("".join(f"{u}::{i}::5::{t}\n" for u, i, t in rows))
    (source / "movies.dat").write_bytes(
        "".join(f"{n}::Amélie, {n} (2001)::Comedy|Drama\n" for n in range(1, 6)).encode("latin-1")
    )
    (source / "users.dat").write_text("1::F::1::10::48067\n")
    assert read(source) == (rows, {str(n): (f"Amélie, {n} (2001)",) * 2 for n in range(1, 6)})


def test_movielens_100k_and_its_latest_sets_are_read(source: Path) -> None:
    rows = [(user[1:], item[1:], time) for user, item, time in PAIRS]
    titles = {str(n): (f"Film {n}",) * 2 for n in range(1, 6)}
    (source / "u.data").write_text("".join(f"{u}\t{i}\t5\t{t}\n" for u, i, t in rows))
    (source / "u.item").write_text("".join(f"{n}|Film {n}|01-Jan-1995||http://x|0|1\n" for n in titles))
    (source / "ua.base").write_text("1\t2\t3\t4\n")
    assert read(source, "ml_100k") == (rows, titles)
    for path in source.iterdir():
        path.unlink()
    (source / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n" + "".join(f"{u},{i},4.5,{t}\n" for u, i, t in rows)
    )
    (source / "movies.csv").write_text("movieId,title,genres\n" + "".join(f"{n},Film {n},A|B\n" for n in titles))
    (source / "tags.csv").write_text("userId,movieId,tag,timestamp\n1,2,x,3\n")
    (source / "links.csv").write_text("movieId,imdbId\n1,2\n")
    assert read(source, "ml_latest") == (rows, titles)


def test_recbole_s_atomic_files_are_read_with_quotes_as_text(source: Path) -> None:
    lines = "".join(f"{u}\t{i}\t4.0\t{t}.0\n" for u, i, t in PAIRS)
    (source / "ml-1m.inter").write_text(f"user_id:token\titem_id:token\trating:float\ttimestamp:float\n{lines}")
    lines = "".join(f'{item}\t"{n}" of 5\t1995\n' for n, item in enumerate(TITLES))
    (source / "ml-1m.item").write_text(f"item_id:token\tmovie_title:token_seq\trelease_year:token\n{lines}")
    (source / "ml-1m.user").write_text("user_id:token\tage:token\nu1\t2\n")
    assert read(source, "ml_1m") == (PAIRS, {item: (f'"{n}" of 5',) * 2 for n, item in enumerate(TITLES)})


@pytest.mark.parametrize(("text", "expected"), [
    (lambda time: str(time * 1000), lambda time: time * 1000),
    (lambda time: f"{time}.0", lambda time: time),
    (lambda time: f"{time}.25", lambda time: time * 10**6 + 250_000),
    (lambda time: f" {time} ", lambda time: time),
    (lambda time: iso(time, "%Y-%m-%dT%H:%M:%SZ"), lambda time: time * 10**6),
    (lambda time: iso(time, "%Y-%m-%d %H:%M:%S"), lambda time: time * 10**6),
    (lambda time: iso(time, "%Y-%m-%d %H:%M:%S+00:00"), lambda time: time * 10**6),
    (lambda time: iso(time, "%Y-%m-%dT%H:%M:%S%.6f"), lambda time: time * 10**6),
    (lambda time: iso(time, "%Y/%m/%d %H:%M:%S UTC"), lambda time: time * 10**6),
    (lambda time: iso(time, "%Y-%m-%d"), lambda time: time // 86400 * 86400 * 10**6),
])  # fmt: skip
def test_timestamps_of_every_kind_become_whole_numbers_in_the_same_order(
    source: Path, text: Callable[[int], str], expected: Callable[[int], int]
) -> None:
    write_ninerec(source)
    lines = [f"{user},{item},{text(time * 10)}\n" for user, item, time in PAIRS]
    (source / "Shop_pair.csv").write_text("".join(lines))
    assert [time for _, _, time in read(source)[0]] == [expected(time * 10) for _, _, time in PAIRS]


def iso(time: int, form: str) -> str:
    return str(pl.select(pl.from_epoch(pl.lit(time)).dt.strftime(form)).item())


@pytest.mark.parametrize("kind", [pl.Datetime("ns"), pl.Datetime("ms", "Asia/Shanghai"), pl.Date, pl.Float64])
def test_typed_times_of_parquet_are_read(source: Path, kind: pl.DataType) -> None:
    times = pl.from_epoch("timestamp") if kind != pl.Float64 else pl.col("timestamp")
    if isinstance(kind, pl.Datetime) and kind.time_zone:
        times = times.dt.replace_time_zone("UTC")
    frame().with_columns(times.cast(kind)).write_parquet(source / "Shop_pair.parquet")
    found = [time for _, _, time in read(source)[0]]
    unit = {pl.Float64: 1}.get(kind, 10**6)
    assert found == [time * unit if kind != pl.Date else time // 86400 * 86400 * unit for _, _, time in PAIRS]


@pytest.mark.parametrize(("times", "fault"), [
    (["noon", "5", "6"], "row 1: timestamp 'noon' is not"),
    (["5", "2020-01-01", "6"], "row 2: timestamp '2020-01-01' is not written as the others are"),
    (["5", "6", ""], "row 3: timestamp '' is not"),
    (["5", "99999999999999999999", "6"], "row 2: timestamp '99999999999999999999'"),
    (["5", "nan", "6.5"], "row 2: timestamp 'nan'"),
    (["01/02/2020"] * 3, "row 1: timestamp '01/02/2020' is not a number or an ISO 8601 date"),
    (["2020-01-01 10:00:00", "2020-01-01", "2020-01-02 10:00:00"], "row 2: timestamp '2020-01-01' is not written"),
])  # fmt: skip
def test_a_bad_timestamp_is_named_by_its_row(source: Path, times: list[str], fault: str) -> None:
    write_ninerec(source)
    (source / "Shop_pair.csv").write_text("".join(f"u1,v1,{time}\n" for time in times))
    assert f"Shop_pair.csv, {fault}" in failure(source)


@pytest.mark.parametrize(("text", "fault"), [
    ("v1,u1,5\nv1,u1\n", "Shop_pair.csv: Row #2: Expected 3 columns, got 2"),
    ("v1,u1,5\nv1,u1,6,7\n", "Shop_pair.csv: Row #2: Expected 3 columns, got 4"),
    ("v1,u1\nv1,u2\n", "Shop_pair.csv: which column is the user is not certain"),
    ("v1,u1,5\n,u1,6\n", "Shop_pair.csv, row 2: an id is empty"),
    ('v1,"u1,5\nv2,u1,6\n', "Shop_pair.csv, row 1: unexpected end of data"),
    ('v1,u1,5\nv1,"u"1,5\n', "Shop_pair.csv, row 2: ',' expected after '\"': double the quotes"),
    ("", "Shop_pair.csv is empty"),
    ("\n\n", "Shop_pair.csv is empty"),
    ("user_id,item_id,timestamp\n", "Shop_pair.csv has no interactions"),
    ("kunde,artikel,zeit\nu1,v1,5\n", "no name of its header (kunde, artikel, zeit) tells user, item or time: set"),
    ("kunde,artikel,note,zeit\nu1,v1,1,5\n", "no name of its header (kunde, artikel, note, zeit) tells"),
    ("kunde2,artikel,zeit\nu1,v1,5\n", "row 1: timestamp 'zeit' is not"),
    ("user_id,item_id,when\nu1,v1,5\n", "the time is not certain (its columns are user_id, item_id, when)"),
    ("user_id,item_id,date,timestamp\nu1,v1,5,6\n", "(date, timestamp could all be it): set columns.time"),
    ("user,item,item,time\nu1,v1,v1,5\n", "two columns have one name"),
    ("v1,\x00u1\xff,5\n", "is not UTF-8"),
])  # fmt: skip
def test_bad_interactions_are_named_with_file_and_row(source: Path, text: str, fault: str) -> None:
    write_ninerec(source)
    (source / "Shop_pair.csv").write_bytes(text.encode("latin-1"))
    assert fault in failure(source)


@pytest.mark.parametrize(("text", "fault"), [
    ("v1,a,b\nv1,c,d\n", "Shop_item.csv, row 2: item 'v1' is there twice with different titles"),
    ("v1,a,b\nv2,c\n", "Row #2: Expected 3 columns, got 2"),
    ("v1,a,b\n,c,d\n", "row 2: the item id is empty"),
    ("", "Shop_item.csv is empty"),
    ("v1,a,b,c\n", "Shop_item.csv has 4 columns and no header that we know"),
    ("item_id,title,name\nv1,a,b\n", "title, name could all be the title: set columns.title"),
])  # fmt: skip
def test_bad_items_are_named_with_file_and_row(source: Path, text: str, fault: str) -> None:
    write_ninerec(source)
    (source / "Shop_item.csv").write_text(text)
    assert fault in failure(source)


@pytest.mark.parametrize("header", ["id,title,price", "ID,Name,price", "item_id,title,price"])
def test_a_header_with_plain_id_and_a_title_is_known(source: Path, header: str) -> None:
    frame().write_csv(source / "Shop_pair.csv")
    (source / "Shop_item.csv").write_text(f"{header}\n" + "".join(f"v{n},Title {n},{n}.99\n" for n in range(1, 6)))
    assert read(source) == (PAIRS, {f"v{n}": (f"Title {n}", f"Title {n}") for n in range(1, 6)})


@pytest.mark.parametrize("header", ["nr,title", "nr2,title", "nr,titel", "artikel,titel"])
def test_an_unknown_header_is_not_taken_for_an_item(source: Path, header: str) -> None:
    frame().write_csv(source / "Shop_pair.csv")
    (source / "Shop_item.csv").write_text(f"{header}\n" + "".join(f"v{n},Title {n}\n" for n in range(1, 6)))
    assert failure(source) == (
        f"Shop_item.csv: its first row ({header.replace(',', ', ')}) looks like a header, but no name in it tells the "
        "item: name the columns item_id and title, or add such a header if the row is an item"
    )


def test_ids_without_digits_need_no_header(source: Path) -> None:
    (source / "Shop_pair.csv").write_text("".join(f"pot-{item},{user},{time}\n" for user, item, time in PAIRS))
    (source / "Shop_item.csv").write_text("tea,Tea\nhat,Hat\n" + "".join(f"pot-{item},Pot\n" for item in TITLES))
    assert list(read(source)[1]) == ["tea", "hat", *(f"pot-{item}" for item in TITLES)]


def test_items_that_are_there_twice_with_equal_titles_count_once(source: Path) -> None:
    write_ninerec(source)
    text = (source / "Shop_item.csv").read_text()
    (source / "Shop_item.csv").write_text(text + text + "\n\n")
    assert read(source) == (PAIRS, TITLES)


def test_tab_separated_titles_that_begin_with_a_quote_stay_whole(source: Path) -> None:
    (source / "Shop_pair.csv").write_text(csv_text(frame()))
    (source / "Shop_item.tsv").write_text("".join(f'{item}\t"Weird Al", live\t12" vinyl\n' for item in TITLES))
    assert read(source) == (PAIRS, dict.fromkeys(TITLES, ('"Weird Al", live', '12" vinyl')))


def test_odd_ids_and_titles_arrive_as_they_are(source: Path) -> None:
    items = ["-1", "007", "7", "1e3", "NA", "null", "茶 壶", 'a"b', "x,y", "nan", "0x1", "id"]
    titles = [
        "\U0001f469‍\U0001f373$5",
        "a\tb",
        'say "hi"',
        " lead",
        "NA",
        "null",
        "x" * 10_000,
        "א ב",
        "a\nb",
        "\x1f",
        "'",
        "",
    ]
    pairs = [(f"0{n}", item, n) for n, item in enumerate(items)]
    pl.DataFrame(pairs, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(source / "Shop_pair.csv")
    pl.DataFrame({"item_id": items, "title": titles}).write_csv(source / "Shop_item.csv")
    assert read(source) == (pairs, {item: (title, title) for item, title in zip(items, titles, strict=True)})


def test_where_both_columns_can_be_the_items_columns_item_decides(source: Path) -> None:
    (source / "Shop_item.csv").write_text("".join(f"{n},题{n},T{n}\n" for n in range(1, 101)))
    rows = [(str(n % 60 + 1), str(n % 97 + 1), n) for n in range(200)]
    (source / "Shop_pair.csv").write_text("".join(f"{u},{i},{t}\n" for u, i, t in rows))
    assert "either can be the items: set columns.item to 1 or 2" in failure(source)
    assert read(source, item="2")[0] == rows
    assert read(source, item="1")[0] == [(i, u, t) for u, i, t in rows]
    assert read(source, user="1")[0] == rows
    (source / "Shop_pair.csv").write_text("user,item,time\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    assert read(source)[0] == rows


def test_a_column_that_lacks_one_item_is_not_taken_for_the_users(source: Path) -> None:
    (source / "Shop_item.csv").write_text("".join(f"{n},题{n},T{n}\n" for n in range(1, 100)))
    (source / "Shop_pair.csv").write_text("".join(f"{n % 60 + 1},{n % 100 + 1},{n}\n" for n in range(200)))
    assert "which column has the items is not certain" in failure(
        source
    )  # item 100 has no title, all users look like items


def test_an_items_file_without_most_items_does_not_make_users_of_the_items(source: Path) -> None:
    (source / "Shop_item.csv").write_text("".join(f"{n},题{n},T{n}\n" for n in range(1, 401)))
    rows = [(str(n % 300 + 1), str(n % 1000 + 1), START + n) for n in range(3000)]
    (source / "Shop_pair.csv").write_text("".join(f"{u},{i},{t}\n" for u, i, t in rows))
    assert (
        "which column has the items is not certain (the items' file lacks 0 of 300 values of column 1, and 600 of 1,000"
        " of column 2, such as '401'): use two files of one dataset, or set columns.item"
    ) in failure(source)
    (source / "Shop_pair.csv").write_text("".join(f"{i},{u},{t}\n" for u, i, t in rows))
    assert "which column has the items is not certain (the items' file lacks 600 of 1,000 values" in failure(source)


def test_without_a_header_and_an_items_file_columns_item_decides(source: Path) -> None:
    write_ninerec(source)
    (source / "Shop_item.csv").unlink()
    assert "no header and there is no items' file: set columns.item" in failure(source)
    assert read(source, item="2") == (PAIRS, dict.fromkeys([f"v{n}" for n in range(1, 6)], ("", "")))


def test_columns_of_any_name_are_told_by_params(source: Path) -> None:
    frame("kunde", "artikel", "zeit").write_csv(source / "Shop_pair.csv")
    items_frame("artikel", "titel", "preis").write_csv(source / "Shop_item.csv")
    pairs, titles = read(source, user="kunde", item="artikel", time="zeit", title="titel")
    assert (pairs, titles) == (PAIRS, {item: (zh, zh) for item, (zh, _) in TITLES.items()})
    assert "columns.time=zeti: Shop_pair.csv has no such column, it has kunde, artikel, zeit" in failure(
        source, user="kunde", item="artikel", time="zeti", title="titel"
    )
    assert "columns.title=name: Shop_item.csv has no such column" in failure(
        source, user="kunde", item="artikel", time="zeit", title="name"
    )


@pytest.mark.parametrize("items", ["", "".join(f"v{n},Title {n}\n" for n in range(1, 6))])
def test_a_title_column_that_no_file_has_is_refused(source: Path, items: str) -> None:
    frame().write_csv(source / "Shop_pair.csv")
    if items:
        (source / "Shop_item.csv").write_text(items)
    assert failure(source, title="tilte") == (
        "columns.title=tilte: Shop_pair.csv has no such column, nor has an items' file: name one that is there, or "
        "empty the key"
    )
    assert set(read(source, title="2")[1]) == set(TITLES) if items else "columns.title=2" in failure(source, title="2")


def test_numbers_tell_the_columns_of_wider_files_without_a_header(source: Path) -> None:
    write_ninerec(source)
    (source / "Shop_pair.csv").write_text("".join(f"{u},{i},5,{t}\n" for u, i, t in PAIRS))
    assert "set columns.user" in failure(source)
    assert read(source, user="1", item="2", time="4")[0] == PAIRS


@pytest.mark.parametrize("order", ["uit", "iut", "tui", "uti", "itu", "tiu"])
def test_without_a_header_params_tell_any_order_of_three_columns(source: Path, order: str) -> None:
    write_ninerec(source, [{"u": "user_id", "i": "item_id", "t": "timestamp"}[letter] for letter in order])
    number = {role: str(order.index(role[0]) + 1) for role in ("user", "item", "time")}
    assert read(source, **number)[0] == PAIRS
    for role in number:
        assert read(source, **{other: number[other] for other in number if other != role})[0] == PAIRS
    assert read(source, time=number["time"])[0] == PAIRS  # the values tell user and item


@pytest.mark.parametrize(("columns", "fault"), [
    ({"item": "3"}, "without a header column 3 is the time, but columns.item=3: set columns.time"),
    ({"user": "3"}, "without a header column 3 is the time, but columns.user=3: set columns.time"),
    ({"user": "1", "item": "1"}, "user, item and time must be three columns, not 1, 1: mend `columns`"),
    ({"user": "1", "time": "1"}, "user, item and time must be three columns, not 1, 1: mend `columns`"),
])  # fmt: skip
def test_params_that_contradict_the_place_of_the_time_or_each_other_are_refused(
    source: Path, columns: dict[str, str], fault: str
) -> None:
    write_ninerec(source)
    assert failure(source, **columns) == f"Shop_pair.csv: {fault}"


@pytest.mark.parametrize(("line", "number"), [
    ("{time},{user},{item}", "1"), ("{user},{time},{item}", "2"), ("{user},{date},{item}", "2"),
    ("{date},{user},{long}", "1"),  # long numbers may be ids or times; dates are times
])  # fmt: skip
def test_a_time_that_is_not_in_its_place_is_refused(source: Path, line: str, number: str) -> None:
    (source / "Shop_item.csv").write_text("".join(f"{n},题{n},T{n}\n" for n in range(1, 6)))
    lines = [
        line.format(user=user[1:], item=item[1:], long=f"90000000{item[1:]}", time=time, date=iso(time, "%Y-%m-%d"))
        for user, item, time in PAIRS
    ]
    (source / "Shop_pair.csv").write_text("\n".join(lines))
    assert failure(source) == (
        f"Shop_pair.csv: column 3 has the time where there is no header, but the values of column {number} look more "
        "like times: set columns.time"
    )


@pytest.mark.parametrize("time", [lambda place: place, lambda place: START + place])
def test_long_numbers_as_ids_are_told_from_times_by_columns_time(source: Path, time: Callable[[int], int]) -> None:
    (source / "Shop_item.csv").write_text("".join(f"v{n},题{n},T{n}\n" for n in range(1, 6)))
    rows = [(f"70000000{n % 4}", f"v{n % 5 + 1}", time(n // 4)) for n in range(20)]
    (source / "Shop_pair.csv").write_text("".join(f"{u},{i},{t}\n" for u, i, t in rows))
    assert read(source, time="3")[0] == rows
    if time(0):
        assert read(source)[0] == rows  # both are long: the third is the time, as in NineRec's files
    else:
        assert "the values of column 1 look more like times: set columns.time" in failure(source)


@pytest.mark.parametrize("ratings", [["1", "5", "3"], ["4.0", "0.5", "3.5"], ["10", "7", "8"]])
@pytest.mark.parametrize("columns", [{}, {"user": "1", "item": "2"}])
def test_ratings_are_not_taken_for_times(source: Path, ratings: list[str], columns: dict[str, str]) -> None:
    write_ninerec(source)
    rows = [(user, item, ratings[n % 3]) for n, (user, item, _) in enumerate(PAIRS)]
    (source / "Shop_pair.csv").write_text("".join(f"{u},{i},{rating}\n" for u, i, rating in rows))
    least, *_, most = sorted(ratings, key=float)
    assert failure(source, **columns) == (
        f"Shop_pair.csv: column 3 would be the time, but its values look like ratings ({float(least):g} to "
        f"{float(most):g}, equal ones of one user): add a column of times, or set columns.time=3 if these are times"
    )
    assert [pair[:2] for pair in read(source, time="3")[0]] == [row[:2] for row in rows]


@pytest.mark.parametrize("first", [0, 1])
def test_order_numbers_in_a_user_s_history_serve_as_times(source: Path, first: int) -> None:
    write_ninerec(source)
    rows = [(user, item, first + n // 4) for n, (user, item, _) in enumerate(PAIRS)]
    (source / "Shop_pair.csv").write_text("".join(f"{i},{u},{t}\n" for u, i, t in rows))
    assert read(source)[0] == rows


def test_times_scaled_to_one_may_be_equal(source: Path) -> None:
    write_ninerec(source)
    rows = [(f"u{n % 2}", f"v{n % 5 + 1}", n // 4 / 32) for n in range(100)]  # two of a user at each of 25 times
    (source / "Shop_pair.csv").write_text("".join(f"{u},{i},{t}\n" for u, i, t in rows))
    assert read(source)[0] == [(user, item, int(time * 10**6)) for user, item, time in rows]


def test_movielens_ratings_without_times_are_refused(source: Path) -> None:
    (source / "ratings.dat").write_text("".join(f"{u}::{i}::5\n" for u, i, _ in PAIRS))
    assert "ratings.dat: which column is the time is not certain (its columns are user_id, item_id, rating)" in failure(
        source
    )


def test_a_title_in_the_interactions_counts_only_by_params(source: Path) -> None:
    rows = frame().with_columns(title=pl.when(pl.int_range(pl.len()) > 6).then("item_id"))
    rows.write_csv(source / "Shop_pair.csv")
    assert read(source)[1]["v1"] == ("", "")
    assert read(source, title="title") == (PAIRS, {item: (item, item) for item in TITLES})


@pytest.mark.parametrize(("columns", "expected"), [
    ({"title": "en"}, lambda zh, en: (en, en)), ({"title_en": "en"}, lambda zh, en: ("", en)),
    ({"title_zh": "zh"}, lambda zh, en: (zh, "")), ({}, lambda zh, en: ("", "")),
    ({"title": "zh", "title_en": "en"}, lambda zh, en: (zh, en)),
])  # fmt: skip
def test_titles_of_one_language_or_none_are_read(
    source: Path, columns: dict[str, str], expected: Callable[[str, str], tuple[str, str]]
) -> None:
    write_ninerec(source)
    items_frame(zh="zh", en="en").select("item_id", **columns).write_csv(source / "Shop_item.csv")
    assert read(source)[1] == {item: expected(zh, en) for item, (zh, en) in TITLES.items()}


def test_items_without_a_row_of_their_own_come_last_and_have_no_title(source: Path) -> None:
    frame().write_csv(source / "Shop_pair.csv")
    items_frame().tail(3).write_csv(source / "Shop_item.csv")
    titles = read(source)[1]
    assert list(titles) == ["v3", "v4", "v5", "v1", "v2"]
    assert titles["v1"] == ("", "")
    items_frame().tail(2).write_csv(source / "Shop_item.csv")
    assert "Shop_item.csv has 2 of the 5 items of Shop_pair.csv (not 'v1', for one)" in failure(source)


def test_the_only_candidates_are_taken_whatever_their_names(source: Path) -> None:
    (source / "deep").mkdir()
    frame().write_csv(source / "deep" / "2024.csv")
    items_frame().write_csv(source / "names.tsv", separator="\t")
    (source / "README.txt").write_text("Made in 2024, for tests, by us.\nSee names.tsv.\n")
    assert read(source) == (PAIRS, TITLES)
    frame().write_csv(source / "2025.csv")
    assert "several files that could be the interactions: 2025.csv, deep/2024.csv" in failure(source)
    frame().write_csv(source / "Shop.csv")
    assert read(source) == (PAIRS, TITLES)


def test_any_word_before_item_is_no_other_dataset_unless_it_has_a_pair_file(source: Path) -> None:
    items_frame().write_csv(source / "dim_item.csv")
    frame().write_csv(source / "clicks.csv")
    assert read(source) == (PAIRS, TITLES)
    (source / "clicks.csv").rename(source / "user_item.csv")
    assert read(source) == (PAIRS, TITLES)
    (source / "dim_item.csv").unlink()
    assert read(source)[0] == PAIRS
    (source / "user_item.csv").rename(source / "Shop_pair.csv")
    items_frame().write_csv(source / "Store_item.csv")
    assert read(source)[1]["v1"] == ("", "")  # of another dataset, where the files have NineRec's names
    (source / "Shop_pair.csv").rename(source / "Store_pair.csv")
    assert "has no Shop_pair.csv (it holds Store): mend `dataset` or `source`" in failure(source)


@pytest.mark.parametrize("name", ["movies", "my_movies"])
def test_a_dataset_may_be_called_as_its_items_are(source: Path, name: str) -> None:
    items_frame().write_csv(source / f"{name}.csv")
    frame().write_csv(source / "ratings.csv")
    assert read(source, name) == (PAIRS, TITLES)
    (source / "ratings.csv").rename(source / f"{name}_ratings.csv")
    assert read(source, name) == (PAIRS, TITLES)


def test_amazon_s_books_are_the_reviews_and_not_the_items(source: Path) -> None:
    frame().write_ndjson(source / "Books.jsonl")
    assert read(source, "Books")[0] == PAIRS
    items_frame().write_ndjson(source / "meta_Books.jsonl")
    assert read(source, "Books") == (PAIRS, TITLES)


@pytest.mark.parametrize(("name", "content", "fault"), [
    ("one.csv", b"kunde,artikel,zeit\nu1,v1,5\n", "one.csv: no name of its header (kunde, artikel, zeit) tells user"),
    ("one.csv", b"user,item,item,time\nu1,v1,v1,5\n", "one.csv: two columns have one name (user, item, item, time)"),
    ("one.csv", b"", "one.csv is empty: get it anew"),
    ("one.parquet", b"PAR1", "one.parquet is a damaged Parquet file"),
])  # fmt: skip
def test_why_a_table_is_no_table_of_interactions_is_told(source: Path, name: str, content: bytes, fault: str) -> None:
    (source / name).write_bytes(content)
    assert failure(source / name).startswith(fault)
    assert failure(source).startswith(fault)
    (source / "Shop_item.csv").write_text("v1,a,b\n")
    assert f"has no Shop_pair.csv (nor another table of interactions; {fault}" in failure(source)


def test_another_dataset_s_files_are_not_taken(source: Path) -> None:
    write_ninerec(source)
    assert "has no Store_pair.csv (it holds Shop): mend `dataset` or `source`" in failure(source, "Store")


def test_a_single_table_can_be_the_source(source: Path) -> None:
    (source / "log.csv.gz").write_bytes(gzip.compress(csv_text(frame()).encode()))
    assert read(source / "log.csv.gz")[0] == PAIRS


def test_one_user_with_many_interactions_and_a_hundred_thousand_rows_are_read(source: Path) -> None:
    rows = pl.select(user=pl.lit("u"), item=pl.format("v{}", pl.int_range(100_000) % 7), time=pl.int_range(100_000))
    rows.write_csv(source / "Shop_pair.csv")
    assert read(source)[0] == rows.rows()


def jpg(name: str) -> bytes:
    return f"image {name}".encode()


def covers(source: Path) -> dict[str, bytes]:
    read(source)
    with zipfile.ZipFile(source.parent / "out" / "Shop_cover.zip") as archive:
        assert archive.namelist() == sorted(archive.namelist(), key=lambda name: name.split(".")[0])
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".webp", ".gif", ".bmp", ".tiff"])
@pytest.mark.parametrize("folder", ["Shop_cover", "Shop_cover/0/1", "covers", "pictures/a", ""])
def test_covers_of_any_suffix_are_found_at_any_depth(source: Path, suffix: str, folder: str) -> None:
    write_ninerec(source)
    (source / folder).mkdir(parents=True, exist_ok=True)
    for name in ("v1", "v3", "logo"):
        (source / folder / f"{name}{suffix}").write_bytes(jpg(name))
    assert covers(source) == {f"{name}{suffix.lower()}": jpg(name) for name in ("v1", "v3")}


def test_covers_named_after_the_dataset_come_before_others(source: Path) -> None:
    write_ninerec(source)
    for folder in ("Shop_cover", "thumbnails", "Store_cover"):
        (source / folder).mkdir()
        (source / folder / "v1.jpg").write_bytes(jpg(folder))
    assert covers(source) == {"v1.jpg": jpg("Shop_cover")}


def test_two_covers_of_one_item_are_refused(source: Path) -> None:
    write_ninerec(source)
    for name in ("v1.jpg", "v1.png"):
        (source / name).write_bytes(jpg(name))
    assert "two covers of item 'v1' (v1.jpg, v1.png): remove one" in failure(source)


@pytest.mark.parametrize("name", ["Shop_cover.zip", "covers.zip", "Shop_cover.tar", "images.tar.gz", "Shop_images.tgz"])
def test_covers_are_found_in_archives(source: Path, name: str) -> None:
    write_ninerec(source)
    if name.endswith(".zip"):
        with zipfile.ZipFile(source / name, "w") as archive:
            archive.writestr("a/b/v2.png", jpg("v2"))
    else:
        with tarfile.open(source / name, "w:gz" if name.endswith("gz") else "w") as archive:
            member = tarfile.TarInfo("a/v2.png")
            member.size = len(jpg("v2"))
            archive.addfile(member, io.BytesIO(jpg("v2")))
    assert covers(source) == {"v2.png": jpg("v2")}


def test_what_was_read_is_printed(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame().write_csv(source / "Shop_pair.csv")
    items_frame().tail(3).write_csv(source / "Shop_item.csv")
    (source / "v5.png").write_bytes(b"5")
    (source / "logo.png").write_bytes(b"0")
    read(source)
    assert capsys.readouterr().out.splitlines() == [
        "interactions: Shop_pair.csv (columns of user, item, time: user_id, item_id, timestamp)",
        "items: Shop_item.csv, 5 items, 2 of them in the interactions alone",
        "covers: 1 of 5 items (not v3, v4, v1 …); 1 images of no item",
    ]


def test_that_all_interactions_have_one_time_is_printed(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame().with_columns(timestamp=5).write_csv(source / "ratings.csv")
    read(source)
    assert (
        "interactions: all have the same time: each user's items are taken in the order of" in capsys.readouterr().out
    )


def test_columns_that_the_values_tell_are_printed(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_ninerec(source, ["item_id", "user_id", "timestamp"])
    read(source)
    assert "interactions: Shop_pair.csv (columns of user, item, time: 2, 1, 3)" in capsys.readouterr().out.splitlines()


def test_movielens_files_are_known_when_compressed(source: Path) -> None:
    rows = [(user[1:], item[1:], time) for user, item, time in PAIRS]
    (source / "ratings.dat.gz").write_bytes(gzip.compress("".join(f"{u}::{i}::5::{t}\n" for u, i, t in rows).encode()))
    (source / "movies.dat.gz").write_bytes(gzip.compress("".join(f"{n}::é\n" for n in range(1, 6)).encode("latin-1")))
    assert read(source) == (rows, {str(n): ("é", "é") for n in range(1, 6)})


def test_a_table_of_users_is_not_taken_for_the_items(source: Path) -> None:
    frame().write_csv(source / "2024.csv")
    (source / "ages.csv").write_text("user_id,age\nu1,20\n")
    (source / "names.csv").write_text("item_id,title\nv1,tea\n" + "".join(f"v{n},\n" for n in range(2, 6)))
    assert read(source)[1]["v1"] == ("tea", "tea")
