import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stages.data.leave_one_out import split_leave_one_out
from stages.data.user_histories import Split, summarise
from stages.errors import InputError

Event = tuple[str, str, int]
ITEMS = [("a", "甲", "A"), ("b", "乙", ""), ("c", "", "C"), ("d", "丁", "D"), ("e", "", " "), ("unused", "无", "U")]


def split_of(
    events: list[Event],
    items: list[tuple[str, str, str]] = ITEMS,
    covers: frozenset[str] = frozenset(),
    least: int = 3,
    parts: int = 1,
) -> Split:
    pairs = pl.LazyFrame(events, schema=["raw_user", "raw_item", "timestamp"], orient="row")
    titles = pl.DataFrame(items, schema=["raw_id", "title_zh", "title_en"], orient="row")
    with tempfile.TemporaryDirectory() as folder:
        return split_leave_one_out(pairs, titles, set(covers), Path(folder), min_interactions=least, parts=parts)


EVENTS = [
    ("late", "d", 9),
    ("late", "a", 1),
    ("early", "c", 5),
    ("late", "b", 4),
    ("early", "a", 5),
    ("early", "b", 5),
    ("late", "b", 4),  # an exact repeat
    ("late", "e", 5),  # no title in either language
    ("short", "a", 1),
    ("short", "e", 2),
    ("early", "a", 6),  # the same item at another time is another event
]


def test_the_last_item_is_the_test_target_and_the_one_before_it_the_validation_target() -> None:
    split = split_of(EVENTS, covers=frozenset({"a", "d"}))
    assert split.items.drop("title_zh", "title_en").rows() == [
        (1, "a", True, 2),
        (2, "b", False, 0),
        (3, "c", False, 1),
        (4, "d", True, 0),
    ]
    assert split.full.rows() == [(0, "late", [1, 2, 4]), (1, "early", [3, 1, 2, 1])]
    assert split.train.rows() == [(0, "late", [1]), (1, "early", [3, 1])]
    assert split.valid.rows() == [(0, 2), (1, 2)]
    assert split.test.rows() == [(0, 4), (1, 1)]


def test_dropped_interactions_and_users_are_counted() -> None:
    split = split_of(EVENTS)
    assert split.dropped == {
        "repeated_events": 1,
        "untitled_interactions": 2,
        "short_users": 1,
        "short_user_interactions": 1,
    }
    assert summarise(split) == {
        "users": 2,
        "items": 4,
        "interactions": 7,
        "sparsity": 1 - 7 / 8,
        "mean_length": 3.5,
        "cold_test_targets": 0.5,
        "dropped": split.dropped,
    }


def test_equal_timestamps_are_ordered_by_row_of_the_file() -> None:
    names = [f"i{number:03}" for number in range(200)]
    events = [("u", name, 1) for name in reversed(names)]
    split = split_of(events, [(name, "题", "T") for name in names])
    assert split.full["items"].to_list() == [list(range(200, 0, -1))]


def test_column_types_are_those_that_later_stages_rely_on() -> None:
    split = split_of(EVENTS)
    histories = {"user": pl.Int32, "raw_id": pl.String, "items": pl.List(pl.Int32)}
    assert split.train.schema == split.full.schema == histories
    assert split.valid.schema == split.test.schema == {"user": pl.Int32, "item": pl.Int32}
    texts = {"raw_id": pl.String, "title_zh": pl.String, "title_en": pl.String}
    assert split.items.schema == {"item": pl.Int32, **texts, "cover": pl.Boolean, "count": pl.Int32}


def test_no_user_with_enough_interactions_is_an_input_error() -> None:
    with pytest.raises(
        InputError, match=r"^no user has 5 interactions with titled items: lower split.min_interactions$"
    ):
        split_of(EVENTS, least=5)


def test_a_user_with_exactly_the_least_number_of_interactions_stays() -> None:
    split = split_of(EVENTS, least=4)
    assert split.full["raw_id"].to_list() == ["early"]
    assert split.dropped["short_users"] == 2
    assert split.dropped["short_user_interactions"] == 4  # three of "late", one of "short"


def test_a_title_in_one_language_is_enough_and_blanks_are_no_title() -> None:
    items = [("zh", "题", " "), ("en", "\t", "T"), ("blank", " ", "\n"), ("none", "", "")]
    events = [("u", raw_id, time) for time, (raw_id, _, _) in enumerate(items)] + [("u", "zh", 9)]
    split = split_of(events, items)
    assert split.items["raw_id"].to_list() == ["zh", "en"]
    assert split.full["items"].to_list() == [[1, 2, 1]]
    assert split.dropped["untitled_interactions"] == 2


def test_equal_interactions_of_two_users_or_at_two_times_are_no_repeats() -> None:
    events = [(user, "a", time) for user in ("u", "v") for time in (1, 2, 3)]
    split = split_of(events)
    assert split.full["items"].to_list() == [[1, 1, 1]] * 2
    assert split.dropped["repeated_events"] == 0


def test_a_repeated_event_counts_at_its_first_row() -> None:
    split = split_of([("u", "b", 1), ("u", "a", 1), ("u", "b", 1), ("u", "d", 2)])
    numbers = dict(split.items.select("raw_id", "item").rows())
    assert split.full["items"].to_list() == [[numbers["b"], numbers["a"], numbers["d"]]]


def test_summary_of_cold_test_targets_is_their_share() -> None:
    others = [(user, item, time) for user in "vwx" for time, item in enumerate(("a", "b", "a"))]
    events = [("u", "a", 1), ("u", "b", 2), ("u", "c", 3), *others]
    facts = summarise(split_of(events))  # only "c" of the four test targets has no training interaction
    assert facts["cold_test_targets"] == 0.25
    assert facts["sparsity"] == 0.0
    assert (facts["users"], facts["items"], facts["interactions"], facts["mean_length"]) == (4, 3, 12, 3.0)


@pytest.fixture(scope="module")
def many() -> list[Event]:
    """2,000 events of 150 users, with repeats, equal timestamps, untitled items and users with too few events."""
    rng = np.random.default_rng(0)
    user, item, time = rng.geometric(0.02, 2000) % 150, rng.integers(0, 5, 2000), rng.integers(0, 40, 2000)
    return [(f"u{u}", "abcde"[i], int(t)) for u, i, t in zip(user, item, time, strict=True)]


@pytest.mark.parametrize("parts", [1, 7])
def test_the_histories_are_those_of_a_plain_loop_in_any_number_of_parts(many: list[Event], parts: int) -> None:
    histories = defaultdict(list)
    for user, item, time in dict.fromkeys(many):
        if item != "e":
            histories[user].append((time, item))
    expected = [
        (user, [item for _, item in sorted(events, key=lambda event: event[0])])
        for user, events in histories.items()
        if len(events) >= 3
    ]
    split = split_of(many, parts=parts)
    raw_ids = dict(split.items.select("item", "raw_id").rows())
    assert [(user, [raw_ids[item] for item in items]) for _, user, items in split.full.rows()] == expected
    assert all(split.dropped.values())


def test_a_split_in_seven_parts_equals_the_split_in_one(many: list[Event]) -> None:
    whole, cut = split_of(many), split_of(many, parts=7)
    for name in ("items", "train", "valid", "test", "full"):
        assert getattr(cut, name).equals(getattr(whole, name))
    assert cut.dropped == whole.dropped
