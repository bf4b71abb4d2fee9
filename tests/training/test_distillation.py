import numpy as np
import pytest
import torch

from stages.data.histories import Histories, training_batches, training_windows
from stages.training.distillation import LEFT_OUT, WHOLE, shortened_histories, student_batches
from stages.training.next_item import TrainingData

CPU = torch.device("cpu")
LENGTHS = np.array([1, 2, 5, 30])
HISTORIES = Histories(np.arange(1, LENGTHS.sum() + 1), np.concatenate([[0], np.cumsum(LENGTHS)]))  # no item twice


def draw(user: int, times: int, max_length: int = 50) -> list[list[int]]:
    """Shortened histories of one user, without padding."""
    rows = shortened_histories(HISTORIES, np.full(times, user), max_length, np.random.default_rng(0))
    return [row[row > 0].tolist() for row in rows]


@pytest.mark.parametrize("user", range(len(LENGTHS)))
def test_a_shortened_history_has_items_of_the_user_in_their_order_and_at_least_one(user):
    own = HISTORIES.values[HISTORIES.offsets[user] : HISTORIES.offsets[user + 1]].tolist()
    for history in draw(user, 500):
        assert history == [item for item in own if item in history]
        assert history


def test_padding_is_at_the_right():
    rows = shortened_histories(HISTORIES, np.array([3, 0, 2, 3]), 50, np.random.default_rng(0))
    for row in rows:
        assert (row > 0).tolist() == [True] * int((row > 0).sum()) + [False] * int((row == 0).sum())
    assert rows.shape[1] == int((rows > 0).sum(dim=1).max())


def test_the_ends_and_the_items_left_out_have_their_shares():
    own = HISTORIES.values[HISTORIES.offsets[3] : HISTORIES.offsets[4]]
    found = draw(3, 20_000)
    with_last = np.mean([own[-1] in history for history in found])
    assert with_last == pytest.approx((WHOLE + (1 - WHOLE) / 30) * (1 - LEFT_OUT), abs=0.01)
    with_first = np.mean([own[0] in history for history in found])
    # also where all other items of a history of few items are left out
    assert with_first == pytest.approx(1 - LEFT_OUT, abs=0.02)


def test_only_the_latest_items_before_the_end_are_kept():
    for history in draw(3, 500, max_length=4):
        assert len(history) <= 4
        assert history[-1] - history[0] < 4  # items are numbered in the order of the history


def test_the_items_and_targets_are_those_of_sicsrec_and_each_row_has_a_history_of_the_same_user():
    data = TrainingData(HISTORIES, HISTORIES, np.zeros(4, np.int64), 38, (), {})
    make = student_batches(data, max_length=50, positions=8, device=CPU)
    plain = training_batches(HISTORIES, training_windows(HISTORIES, 50), 8, np.random.default_rng(5))
    count = 0
    for batch, expected in zip(make(np.random.default_rng(5)), plain, strict=True):
        items, targets, histories = batch
        assert torch.equal(items, expected.items)
        assert torch.equal(targets, expected.targets)
        assert len(histories) == len(items)
        for row, history in zip(items, histories, strict=True):
            user = np.searchsorted(HISTORIES.offsets, int(row[0]), side="left") - 1
            own = HISTORIES.values[HISTORIES.offsets[user] : HISTORIES.offsets[user + 1]]
            assert set(history[history > 0].tolist()) <= set(own.tolist())
            count += 1
    assert count == 3  # a history of one item has no target
