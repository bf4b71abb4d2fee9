import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import polars as pl
import pytest
import torch

from stages.data.histories import (
    Histories,
    history_batches,
    padded_histories,
    training_batches,
    training_batches_with_users,
    training_windows,
)
from tests.parallel.fake_cuda import fake_cuda, forbid_sync

CPU = torch.device("cpu")


def packed(*lists: list[int]) -> Histories:
    return Histories.from_frame(pl.DataFrame({"items": list(lists)}, schema={"items": pl.List(pl.Int32)}))


@pytest.fixture
def many() -> Histories:
    rng = np.random.default_rng(0)
    return packed(*[(1 + rng.permutation(60)[:n]).tolist() for n in rng.integers(1, 30, size=200)])


def test_packing_keeps_every_history():
    histories = packed([3, 1], [2], [5, 4, 6])
    assert histories.values.tolist() == [3, 1, 2, 5, 4, 6]
    assert histories.lengths.tolist() == [2, 1, 3]


def test_an_extended_history_ends_with_the_new_item():
    histories = packed([3, 1], [2]).extended(np.array([7, 8]))
    assert padded_histories(histories, np.array([0, 1])).tolist() == [[3, 1, 7], [2, 8, 0]]


@pytest.mark.parametrize("max_length", [2, 3, 7, 50])
def test_windows_cover_every_target_exactly_once(many, max_length):
    windows = training_windows(many, max_length)
    covered = [
        position + 1
        for start, end, first in zip(windows.start, windows.end, windows.first, strict=True)
        for position in range(start + first, end)
    ]
    starts = set(many.offsets[:-1].tolist())
    assert sorted(covered) == [i for i in range(len(many.values)) if i not in starts]
    assert (windows.end - windows.start).max() <= max_length


@pytest.mark.parametrize("max_length", [1, 2, 3, 7, 8, 50])
def test_windows_are_those_of_a_loop_over_users(many, max_length):
    spans = []
    for user, (begin, stop) in enumerate(itertools.pairwise(many.offsets.tolist())):
        end = min(begin + max_length, stop - 1)
        if end > begin:
            spans.append((begin, end, 0, user))
        while end < stop - 1:
            new_end = min(end + max(1, max_length // 2), stop - 1)
            start = new_end - max_length
            spans.append((start, new_end, end - start, user))
            end = new_end
    windows = training_windows(many, max_length)
    assert list(zip(windows.start, windows.end, windows.first, windows.user, strict=True)) == spans


def test_histories_of_one_item_have_no_windows():
    assert len(training_windows(packed([1], [], [2]), 5).user) == 0


def test_a_long_history_keeps_half_a_window_of_context(many):
    windows = training_windows(many, 8)
    later = windows.first > 0
    assert later.any()
    assert windows.first[later].min() >= 4


def test_an_epoch_holds_every_target_once_and_pads_only_at_the_right(many):
    windows = training_windows(many, 50)
    seen = []
    for batch in training_batches(many, windows, 64, np.random.default_rng(1)):
        items, targets = batch.items.numpy(), batch.targets.numpy()
        assert ((items > 0).cumprod(axis=1) == (items > 0)).all()
        assert (targets[items == 0] == 0).all()
        seen += targets[targets > 0].tolist()
    firsts = many.values[many.offsets[:-1]].tolist()
    assert sorted(seen + firsts) == sorted(many.values.tolist())


def test_batches_are_cut_by_target_positions_not_by_users(many):
    sizes = [
        int((b.targets > 0).sum())
        for b in training_batches(many, training_windows(many, 50), 100, np.random.default_rng(1))
    ]
    assert max(sizes) <= 100 + 30
    assert sum(size < 70 for size in sizes) <= 1  # the last one holds what is left


def test_a_target_is_the_item_after_its_position():
    histories = packed([4, 2, 9])
    (batch,) = training_batches(histories, training_windows(histories, 50), 100, np.random.default_rng(0))
    assert batch.items.tolist() == [[4, 2]]
    assert batch.targets.tolist() == [[2, 9]]


@contextmanager
def a_card_with_room_for(size: int) -> Iterator[torch.device]:
    with pytest.MonkeyPatch.context() as patch, fake_cuda() as card:
        patch.setattr("stages.data.histories.residence", lambda asked, device: device if asked <= size else CPU)
        yield card


def test_on_a_card_the_same_batches_are_cut_there_without_asking_it(many):
    def epoch(device=CPU):
        return training_batches_with_users(many, training_windows(many, 8), 64, np.random.default_rng(1), device)

    with a_card_with_room_for(10**6) as card:
        batches = epoch(card)
        found = [next(batches)]  # by now everything is there
        with forbid_sync():
            found += list(batches)
    for (*batch, users), (*expected, whose) in zip(found, epoch(), strict=True):
        assert all(torch.equal(tensor.inner, there) for tensor, there in zip(batch, expected, strict=True))
        assert (users == whose).all()


def test_what_does_not_fit_on_a_card_is_cut_in_main_memory(many):
    with a_card_with_room_for(0) as card:
        batch = next(training_batches(many, training_windows(many, 8), 64, np.random.default_rng(1), card))
    assert batch.items.device == batch.targets.device == CPU


def test_history_batches_hold_every_user_once_with_its_latest_items(many):
    users_seen = []
    for users, items in history_batches(many, 5, 16):
        users_seen += users.tolist()
        for user, row in zip(users, items.tolist(), strict=True):
            history = many.values[many.offsets[user] : many.offsets[user + 1]].tolist()
            assert [item for item in row if item] == history[-5:]
    assert sorted(users_seen) == list(range(200))
