from pathlib import Path

import polars as pl
import pytest

from stages.data.columns import Wanted
from stages.errors import InputError
from stages.files import write_parquet
from stages.serving.requests import FULL, ITEMS, Requests, all_users, listed_users, read_histories

FULL_ROWS = {"user": [0, 1, 2], "raw_id": ["ann", "bob", "cid"], "items": [[1, 2, 3], [2, 1, 3], [3, 3, 1]]}
CATALOGUE = pl.DataFrame({"item": [1, 2, 3], "raw_id": ["v1", "v2", "v3"]}, schema_overrides={"item": pl.Int32})


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_parquet(ITEMS, CATALOGUE, {"artifacts/split": "1"})
    write_parquet(FULL, pl.DataFrame(FULL_ROWS), {"artifacts/split": "1"})


def as_dict(requests: Requests) -> dict[str, list[int]]:
    """{user: history}, in the order of the requests."""
    values, offsets = requests.histories.values.tolist(), requests.histories.offsets.tolist()
    return {user: values[offsets[n] : offsets[n + 1]] for n, user in enumerate(requests.users)}


def users_file(text: str, *, ignore_unknown: bool = False) -> dict[str, list[int]]:
    Path("users.txt").write_text(text)
    return as_dict(listed_users(Path("users.txt"), Wanted(), ignore_unknown=ignore_unknown))


def histories_file(text: str, *, ignore_unknown: bool = False, name: str = "clicks.csv") -> dict[str, list[int]]:
    Path(name).write_text(text)
    return as_dict(read_histories(Path(name), CATALOGUE, Wanted(), ignore_unknown=ignore_unknown))


def test_all_users_come_with_their_whole_histories():
    assert as_dict(all_users()) == dict(zip(FULL_ROWS["raw_id"], FULL_ROWS["items"], strict=True))


def test_a_part_of_the_requests_has_its_own_histories():
    assert as_dict(all_users().part(1, 3)) == {"bob": [2, 1, 3], "cid": [3, 3, 1]}


def test_histories_of_another_split_are_refused():
    write_parquet(FULL, pl.DataFrame(FULL_ROWS), {"artifacts/split": "2"})
    with pytest.raises(InputError, match="do not belong together"):
        all_users()


@pytest.mark.parametrize("text", ["cid\nann\ncid\n", "user_id\ncid\nann\n", "country,user_id\nx,cid\ny,ann\n"])
def test_listed_users_come_in_the_order_of_the_file_each_once(text):
    assert users_file(text) == {"cid": [3, 3, 1], "ann": [1, 2, 3]}


def test_unknown_users_are_named_and_counted():
    with pytest.raises(InputError, match=r"has no zoe, yan \(2 unknown ids of 3 users\): mend them, or add --ignore-"):
        users_file("zoe\nann\nyan\n")


def test_ignored_unknown_users_have_no_history(capsys):
    assert users_file("zoe\nann\n", ignore_unknown=True) == {"zoe": [], "ann": [1, 2, 3]}
    assert "has no zoe (1 unknown ids of 2 users): ignored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "users.txt is empty"),
        ("user_id\n", "users.txt has no rows"),
        ("country,age\nx,1\n", "has several columns and no header: leave one, or name the users' user_id"),
        ("user,segment\nx,1\n", "has several columns and no header: leave one, or name the users' user_id"),
    ],
)
def test_a_file_without_users_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        users_file(text)


def test_a_file_that_does_not_exist_is_named():
    with pytest.raises(InputError, match="--users nobody.csv: there is no such file"):
        listed_users(Path("nobody.csv"), Wanted(), ignore_unknown=False)


def test_histories_go_by_time_and_users_by_their_first_row():
    text = "user,item,time\nyan,v2,30\nxu,v3,10\nyan,v1,20\nyan,v3,30\n"
    assert histories_file(text) == {"yan": [1, 2, 3], "xu": [3]}


def test_without_a_time_the_order_of_the_rows_counts():
    assert histories_file("user,item\nyan,v2\nyan,v1\n") == {"yan": [2, 1]}


def test_a_column_that_may_be_an_unknown_time_is_named(capsys):
    histories_file("user,item,when\nb,v3,300\nb,v1,100\n")
    said = capsys.readouterr().err
    assert "no column is known as the time (when): rows count in their order; set columns.time if one is" in said


def test_json_lines_and_parquet_are_read_too():
    rows = pl.DataFrame({"item_id": ["v2", "v1"], "user_id": [7, 7], "timestamp": [2, 1]})
    rows.write_parquet("clicks.parquet")
    assert as_dict(read_histories(Path("clicks.parquet"), CATALOGUE, Wanted(), ignore_unknown=False)) == {"7": [1, 2]}
    assert histories_file('{"user": "7", "item": "v3"}\n', name="clicks.jsonl") == {"7": [3]}


def test_a_row_without_an_item_names_a_user_without_history():
    assert histories_file("user,item\nyan,v2\nnew,\n") == {"yan": [2], "new": []}


def test_unknown_items_are_named_and_counted():
    with pytest.raises(InputError, match=r"has no x9, x8 \(2 unknown ids in 3 of 4 rows\): mend them"):
        histories_file("user,item\na,x9\na,v1\nb,x8\nb,x9\n")


def test_ignored_unknown_items_are_left_out_and_their_users_are_not():
    assert histories_file("user,item\na,x9\na,v1\nb,x8\n", ignore_unknown=True) == {"a": [1], "b": []}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "clicks.csv is empty"),
        ("user,item\n", "clicks.csv has no rows"),
        ("7,v1\n8,v2\n", "has no header: make its first row user,item"),
        ("user_id,price\na,1\n", "which column is the item is not certain"),
        ("user,item\n,v1\n", "clicks.csv, row 1: the user is empty"),
        ("user,item,time\na,v1,soon\n", "timestamp 'soon' is not a number"),
    ],
)
def test_a_file_that_cannot_be_read_for_certain_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        histories_file(text)


def test_a_column_without_a_name_is_neither_user_nor_item_nor_time():
    assert histories_file(",user,item\n0,yan,v2\n1,yan,v1\n") == {"yan": [2, 1]}
    names = list(pl.read_parquet("artifacts/split/full.parquet")["raw_id"][:2])
    assert list(users_file(f",user_id,country\n0,{names[1]},x\n1,{names[0]},y\n")) == [names[1], names[0]]


def test_a_row_without_an_item_needs_no_time():
    assert histories_file("user,item,time\nyan,v2,30\nnobody,,\n") == {"yan": [2], "nobody": []}


def test_repeated_rows_count_once_where_there_is_a_time():
    text = "yan,v2,30\nyan,v2,30\nyan,v1,20\n"
    assert histories_file(f"user,item,time\n{text}") == {"yan": [1, 2]}
    assert histories_file("user,item\nyan,v2\nyan,v2\n") == {"yan": [2, 2]}
