from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from stages.data.histories import Histories
from stages.data.time_split import find_moments, split_by_time
from stages.data.user_histories import Split, summarise
from stages.errors import InputError

ITEMS = pl.DataFrame({"raw_id": list("abcdef"), "title_zh": list("abcdef"), "title_en": list("abcdef")})
EVENTS = {  # user: (item, time); validation begins at 10, the test at 20
    "both": [("a", 1), ("b", 2), ("c", 10), ("d", 19), ("e", 20), ("a", 30)],
    "test_only": [("b", 3), ("a", 9), ("c", 25)],
    "valid_only": [("c", 4), ("b", 5), ("f", 12)],
    "ended": [("a", 6), ("c", 7), ("b", 8)],
    "new": [("a", 8), ("c", 11), ("d", 21)],
    "late": [("c", 12), ("a", 22)],
    "short": [("a", 9)],
}


def pairs_of(events: dict[str, list[tuple[str, int]]]) -> pl.LazyFrame:
    rows = [(user, item, time) for user, pairs in events.items() for item, time in pairs]
    return pl.LazyFrame(rows, schema=["raw_user", "raw_item", "timestamp"], orient="row")


def split_of(folder: Path, events: dict[str, list[tuple[str, int]]] = EVENTS, **changes: int) -> Split:
    moments = {"valid_from": 10, "test_from": 20, "min_interactions": 2} | changes
    return split_by_time(pairs_of(events), ITEMS, set(), folder, **moments)


def targets(split: Split, name: str) -> dict[str, tuple[str, list[str]]]:
    """{user: (target, history)} of a table, in raw ids."""
    raw = dict(split.items.select("item", "raw_id").iter_rows())
    users = dict(split.full.select("user", "raw_id").iter_rows())
    rows = getattr(split, name).rows()
    return {users[user]: (raw[item], [raw[viewed] for viewed in history]) for user, item, history in rows}


def test_the_first_item_of_each_period_is_the_target_and_all_before_it_the_history(tmp_path):
    split = split_of(tmp_path)
    assert targets(split, "valid") == {"both": ("c", ["a", "b"]), "valid_only": ("f", ["c", "b"]), "new": ("c", ["a"])}
    assert targets(split, "test") == {
        "both": ("e", ["a", "b", "c", "d"]),
        "test_only": ("c", ["b", "a"]),
        "new": ("d", ["a", "c"]),
        "late": ("a", ["c"]),
    }


def test_a_target_with_too_few_items_before_it_does_not_count(tmp_path):
    split = split_of(tmp_path, min_interactions=3)
    assert targets(split, "valid").keys() == {"both", "valid_only"}
    assert targets(split, "test").keys() == {"both", "test_only", "new"}


def test_training_ends_for_all_users_when_validation_begins(tmp_path):
    split = split_of(tmp_path)
    assert split.train["raw_id"].to_list() == ["both", "test_only", "valid_only", "ended"]
    assert split.train["items"].list.len().to_list() == [2, 2, 2, 3]
    assert split.items["count"].sum() == 9
    assert split.train.schema == split.full.schema
    assert split.full["items"].list.len().to_list() == [6, 3, 3, 3, 3, 2]
    assert split.dropped["short_users"] == 1


def test_what_comes_later_changes_nothing_that_is_trained_on(tmp_path):
    past = {user: [pair for pair in pairs if pair[1] < 10] for user, pairs in EVENTS.items()}
    past["both"] += [("f", 10), ("f", 20)]
    tables = []
    for name, events in (("one", EVENTS), ("other", past)):
        (tmp_path / name).mkdir()
        split = split_of(tmp_path / name, events)
        raw_ids = split.items.select(items="item", raw_item="raw_id")
        rows = split.train.explode("items").join(raw_ids, on="items", how="left", maintain_order="left")
        tables.append(rows.select("raw_id", "raw_item").rows())
    assert tables[0] == tables[1]


def test_histories_before_targets_are_those_of_the_tables(tmp_path):
    split = split_of(tmp_path)

    def leave_one_out() -> Histories:
        raise AssertionError

    found = Histories.before(split.test, otherwise=leave_one_out)
    assert found.lengths.tolist() == split.test["history"].list.len().to_list()
    assert found.values.tolist() == split.test["history"].explode().to_list()
    other = Histories.from_frame(split.train)
    assert Histories.before(split.test.drop("history"), otherwise=lambda: other) is other


def test_training_with_validation_items_has_of_each_user_all_that_precedes_the_test(tmp_path):
    split = split_of(tmp_path)
    raw, users = (dict(split.items.select("item", "raw_id").iter_rows()), split.full["raw_id"].to_list())
    found = Histories.with_validation(split.train, split.valid, split.test)
    rows = [found.values[found.offsets[n] : found.offsets[n + 1]].tolist() for n in range(len(found.lengths))]
    expected = {
        user: [item for item, time in EVENTS[user] if time < 20] for user in users
    }  # here no user has a second item in the validation period only
    assert {user: [raw[item] for item in row] for user, row in zip(users, rows, strict=True)} == expected


def test_several_parts_give_the_same_tables(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, several = split_of(tmp_path / "a"), split_of(tmp_path / "b", parts=3)
    for name in ("items", "train", "valid", "test", "full"):
        assert getattr(one, name).equals(getattr(several, name))


def test_the_share_of_cold_targets_is_of_the_test_items(tmp_path):
    assert summarise(split_of(tmp_path))["cold_test_targets"] == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_from": 31}, "no user has 2 interactions with titled items in the end: set split.valid_from"),
        ({"valid_from": 13, "test_from": 15}, "no user has 2 interactions with titled items up to split.test_from"),
        ({"min_interactions": 5}, "no user has 5 interactions with titled items before split.valid_from"),
    ],
)
def test_an_empty_period_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        split_of(tmp_path, **changes)


HUNDRED = pairs_of({"u": [("a", time) for time in range(100)]})


def test_a_fraction_is_a_quantile_and_a_whole_number_a_timestamp():
    assert find_moments(HUNDRED, "0.8", "95") == (80, 95)
    nanoseconds = pl.LazyFrame({"timestamp": [1700000000123456789, 1700000000123456999]})
    assert find_moments(nanoseconds, "1700000000123456789", "1700000000123456790")[0] == 1700000000123456789


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_a_date_is_converted_to_the_unit_of_the_timestamps(unit):
    start = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
    pairs = pairs_of({"u": [("a", (start + hour * 3600) * unit) for hour in range(100)]})
    assert find_moments(pairs, "2024-01-02", "2024-01-03 02:00+02:00") == (
        (start + 24 * 3600) * unit,
        (start + 48 * 3600) * unit,
    )


@pytest.mark.parametrize("moments", [("0.9", "0.8"), ("0.8", "0.8"), ("50", "2024-01-01")])
def test_moments_in_the_wrong_order_or_after_the_end_are_refused(moments):
    with pytest.raises(InputError, match="they must come in this order"):
        find_moments(HUNDRED, *moments)


@pytest.mark.parametrize("text", ["nan", "inf", "soon"])
def test_a_moment_that_is_no_moment_is_refused_with_the_forms_that_are(text):
    with pytest.raises(InputError, match=f"split.valid_from={text}: write a fraction"):
        find_moments(HUNDRED, text, "0.9")
