import time
from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
import torch

from stages.data.histories import Histories
from stages.serving import recommendations
from stages.serving.recommendations import Choice, recommend_items, run_batches, viewed_items
from stages.serving.requests import Requests, single
from stages.serving.trained import Trained

HISTORIES = {"a": [3, 1, 2], "new": [], "b": [5], "long": [*range(1, 16), 4]}


def requests(**histories: list[int]) -> Requests:
    frame = pl.DataFrame(
        {"raw_id": list(histories), "items": list(histories.values())},
        schema={"raw_id": pl.String, "items": pl.List(pl.Int32)},
    )
    return Requests.from_frame(frame)


def naive(trained: Trained, history: list[int], *, keep_viewed: bool) -> list[tuple[str, float]]:
    """Item and score of all items, best first, by one history at a time."""
    model = trained.model
    with torch.no_grad():
        hidden = model.last_hidden(torch.tensor([history[-model.config.max_length :]]))
        scores = (hidden @ model.item_matrix().T)[0]
    numbers = [n for n in range(1, len(scores) + 1) if keep_viewed or n not in history]
    numbers.sort(key=lambda n: -scores[n - 1])
    return [(f"v{n}", float(scores[n - 1])) for n in numbers]


@pytest.mark.parametrize("keep_viewed", [False, True])
def test_each_user_gets_the_best_items_after_the_own_history(trained, keep_viewed, monkeypatch):
    monkeypatch.setattr(recommendations, "USERS_PER_BATCH", 2)
    rows = recommend_items(trained, requests(**HISTORIES), Choice(top=4, keep_viewed=keep_viewed))
    for user in ("a", "b", "long"):
        mine = rows.filter(pl.col("user") == user)
        expected = naive(trained, HISTORIES[user], keep_viewed=keep_viewed)[:4]
        assert mine["item"].to_list() == [item for item, _ in expected]
        assert mine["score"].to_list() == pytest.approx([score for _, score in expected], abs=1e-6)
        assert mine["rank"].to_list() == [1, 2, 3, 4]
        assert set(mine["basis"]) == {"history"}
    assert rows["user"].unique(maintain_order=True).to_list() == list(HISTORIES)


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def many_users() -> Requests:
    rng = np.random.default_rng(0)
    return requests(**{f"u{n}": rng.integers(1, 16, rng.integers(0, 12)).tolist() for n in range(60)})


def test_several_threads_recommend_the_same_as_one(trained, monkeypatch, two_threads):
    expected = recommend_items(trained, many_users(), Choice(top=4))  # one batch
    monkeypatch.setattr(recommendations, "USERS_PER_BATCH", 3)
    rows = recommend_items(trained, many_users(), Choice(top=4))
    assert rows.drop("score").equals(expected.drop("score"))
    assert torch.get_num_threads() == 2


def test_an_error_in_a_thread_is_raised_and_the_threads_are_set_back(trained, monkeypatch, two_threads):
    monkeypatch.setattr(recommendations, "USERS_PER_BATCH", 3)
    too_high = requests(**{f"u{n}": [10_000] for n in range(9)})
    with pytest.raises(IndexError):
        recommend_items(trained, too_high, Choice(top=4))
    assert torch.get_num_threads() == 2


def test_users_without_history_get_popular_items_that_are_marked(trained):
    rows = recommend_items(trained, requests(**HISTORIES), Choice(top=3)).filter(pl.col("user") == "new")
    assert rows.drop("user").rows() == [(f"v{n}", n, None, "popularity") for n in (1, 2, 3)]


def test_users_without_history_get_nothing_if_that_is_chosen(trained):
    rows = recommend_items(trained, requests(**HISTORIES), Choice(top=3, popular=False))
    assert set(rows["user"]) == {"a", "b", "long"}


def test_a_request_of_new_users_only_is_answered(trained):
    rows = recommend_items(trained, requests(x=[], y=[]), Choice(top=2))
    assert rows["item"].to_list() == ["v1", "v2"] * 2


def test_who_has_viewed_nearly_everything_gets_what_is_left(trained):
    rows = recommend_items(trained, requests(a=list(range(1, trained.items.height))), Choice(top=5))
    assert rows["item"].to_list() == [f"v{trained.items.height}"]


def test_more_items_than_there_are_give_all_of_them(trained):
    rows = recommend_items(trained, single([1]), Choice(top=1000, keep_viewed=True))
    assert sorted(rows["item"]) == sorted(trained.items["raw_id"])


def test_viewed_items_name_the_row_of_each_item():
    histories = Histories(np.array([7, 8, 9, 1, 2]), np.array([0, 3, 5]))
    rows, items = viewed_items(histories, np.array([1, 0]))
    assert rows.tolist() == [0, 0, 1, 1, 1]
    assert items.tolist() == [1, 2, 7, 8, 9]


def test_after_an_error_no_further_batch_is_begun():
    begun: list[int] = []

    def rank_batch(users: np.ndarray, items: torch.Tensor) -> None:
        begun.append(int(users[0]))
        if users[0] == 0:
            raise RuntimeError("the first batch fails")
        time.sleep(0.05)

    batches = ((np.array([number]), torch.zeros(1, 1)) for number in range(100))
    with pytest.raises(RuntimeError, match="the first batch fails"):
        run_batches(rank_batch, batches, workers=2)
    assert len(begun) < 50  # of 100, however busy the machine is
