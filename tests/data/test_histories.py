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
    prefix_windows,
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


def test_packed_histories_are_those_of_the_frame():
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


def test_later_windows_of_a_long_history_have_half_a_window_of_context(many):
    windows = training_windows(many, 8)
    later = windows.first > 0
    assert later.any()
    assert windows.first[later].min() >= 4


def test_an_epoch_has_every_target_once_and_padding_only_at_the_right(many):
    windows = training_windows(many, 50)
    seen = []
    for batch in training_batches(many, windows, 64, np.random.default_rng(1)):
        items, targets = batch.items.numpy(), batch.targets.numpy()
        assert ((items > 0).cumprod(axis=1) == (items > 0)).all()
        assert (targets[items == 0] == 0).all()
        seen += targets[targets > 0].tolist()
    firsts = many.values[many.offsets[:-1]].tolist()
    assert sorted(seen + firsts) == sorted(many.values.tolist())


def test_batches_have_a_number_of_targets_not_of_users(many):
    sizes = [
        int((b.targets > 0).sum())
        for b in training_batches(many, training_windows(many, 50), 100, np.random.default_rng(1))
    ]
    assert max(sizes) <= 100 + 30
    assert sum(size < 70 for size in sizes) <= 1  # the last batch is what remains


def test_a_target_is_the_item_after_its_position():
    histories = packed([4, 2, 9])
    (batch,) = training_batches(histories, training_windows(histories, 50), 100, np.random.default_rng(0))
    assert batch.items.tolist() == [[4, 2]]
    assert batch.targets.tolist() == [[2, 9]]


@contextmanager
def gpu_with_room_for(size: int) -> Iterator[torch.device]:
    with pytest.MonkeyPatch.context() as patch, fake_cuda() as card:
        patch.setattr("stages.data.histories.choose_placement", lambda asked, device: device if asked <= size else CPU)
        yield card


def test_batches_cut_on_a_gpu_are_the_same_and_need_no_synchronisation(many):
    def epoch(device=CPU):
        return training_batches_with_users(many, training_windows(many, 8), 64, np.random.default_rng(1), device)

    with gpu_with_room_for(10**6) as card:
        batches = epoch(card)
        found = [next(batches)]  # everything has been copied to the GPU
        with forbid_sync():
            found += list(batches)
    for (*batch, users), (*expected, expected_users) in zip(found, epoch(), strict=True):
        assert all(torch.equal(tensor.inner, other) for tensor, other in zip(batch, expected, strict=True))
        assert (users == expected_users).all()


def test_histories_that_do_not_fit_into_gpu_memory_are_cut_on_the_cpu(many):
    with gpu_with_room_for(0) as card:
        batch = next(training_batches(many, training_windows(many, 8), 64, np.random.default_rng(1), card))
    assert batch.items.device == batch.targets.device == CPU


def test_history_batches_have_every_user_once_with_its_latest_items(many):
    users_seen = []
    for users, items in history_batches(many, max_length=5, batch_users=16):
        users_seen += users.tolist()
        for user, row in zip(users, items.tolist(), strict=True):
            history = many.values[many.offsets[user] : many.offsets[user + 1]].tolist()
            assert [item for item in row if item] == history[-5:]
    assert sorted(users_seen) == list(range(200))


def test_history_batches_go_by_length_and_ties_by_user():
    histories = packed([1, 2, 3, 4], [5], [6, 7], [8], [1, 2, 3])
    batches = [
        (users.tolist(), items.tolist()) for users, items in history_batches(histories, max_length=2, batch_users=2)
    ]
    assert batches == [([1, 3], [[5], [8]]), ([0, 2], [[3, 4], [6, 7]]), ([4], [[2, 3]])]


def test_counts_start_at_item_one_and_include_items_that_never_occur():
    assert packed([3, 1], [3]).counts(5).tolist() == [1, 0, 2, 0, 0]


def test_extending_moves_the_offsets_of_later_users_and_allows_empty_histories():
    histories = packed([3, 1], [], [2]).extended(np.array([7, 8, 9]))
    assert histories.values.tolist() == [3, 1, 7, 8, 2, 9]
    assert histories.offsets.tolist() == [0, 3, 4, 6]
    assert histories.lengths.tolist() == [3, 1, 2]


def test_padded_histories_are_whole_without_a_length_and_the_latest_items_with_one():
    histories = packed([1, 2, 3], [4])
    assert padded_histories(histories, np.array([1, 0])).tolist() == [[4, 0, 0], [1, 2, 3]]
    assert padded_histories(histories, np.array([0, 1]), 2).tolist() == [[2, 3], [4, 0]]


def test_a_prefix_window_holds_the_items_before_its_target():
    histories = packed([1, 2, 3, 4], [5], [6, 7])
    windows = prefix_windows(histories, 2)
    inputs = [histories.values[start:end].tolist() for start, end in zip(windows.start, windows.end, strict=True)]
    assert inputs == [[1], [1, 2], [2, 3], [6]]
    assert histories.values[windows.end].tolist() == [2, 3, 4, 7]
    assert windows.user.tolist() == [0, 0, 0, 2]
    assert windows.targets.tolist() == [1] * 4  # only the last position has a target
    (batch,) = training_batches(histories, windows, 100, np.random.default_rng(0))
    assert sorted(batch.targets.max(dim=1).values.tolist()) == [2, 3, 4, 7]
    assert ((batch.targets > 0).sum(dim=1) == 1).all()


def test_targets_of_overlapping_windows_are_those_from_first_on():
    windows = training_windows(packed(list(range(1, 9))), 4)
    assert list(zip(windows.start, windows.end, windows.first, strict=True)) == [(0, 4, 0), (2, 6, 2), (3, 7, 3)]
    assert windows.targets.tolist() == [4, 2, 1]


def test_an_epoch_is_shuffled_by_its_generator_and_groups_windows_of_similar_length(many):
    windows = training_windows(many, 50)

    def epoch(seed):
        batches = training_batches_with_users(many, windows, 64, np.random.default_rng(seed))
        return [users.tolist() for _, _, users in batches]

    assert epoch(1) == epoch(1)
    assert epoch(1) != epoch(2)
    assert sorted(sum(epoch(1), [])) == sorted(windows.user.tolist())
    widths = [batch.items.shape[1] for batch in training_batches(many, windows, 64, np.random.default_rng(1))]
    assert widths != sorted(widths)  # the order of batches is random too
    spread = [np.ptp(many.lengths[users]) for users in epoch(1)]
    assert np.mean(spread) < 3  # lengths are 1 to 29


def test_every_batch_holds_the_users_that_it_names(many):
    windows = training_windows(many, 50)
    for items, targets, users in training_batches_with_users(many, windows, 64, np.random.default_rng(1)):
        for user, row, following in zip(users, items.tolist(), targets.tolist(), strict=True):
            history = many.values[many.offsets[user] : many.offsets[user + 1]].tolist()
            assert [item for item in row if item] == history[:-1]
            assert [item for item in following if item] == history[1:]
        assert items.shape[1] == int((items > 0).sum(dim=1).max())  # no wider than the longest window


def test_a_batch_closes_when_its_number_of_targets_is_reached():
    histories = packed([1, 2], [3, 4], [5, 6], [7, 8], [1, 3])
    sizes = [
        len(batch.items)
        for batch in training_batches(histories, training_windows(histories, 9), 2, np.random.default_rng(0))
    ]
    assert sorted(sizes) == [1, 2, 2]


def test_windows_of_one_length_stay_in_the_shuffled_order():
    histories = packed(*[[1, 2, 3][: 2 + user % 2] for user in range(400)])
    shuffled = np.random.default_rng(3).permutation(400)
    by_length = np.concatenate([shuffled[shuffled % 2 == 0], shuffled[shuffled % 2 == 1]]).tolist()
    windows = training_windows(histories, 9)
    for _, _, users in training_batches_with_users(histories, windows, 32, np.random.default_rng(3)):
        first = by_length.index(users[0])
        assert users.tolist() == by_length[first : first + len(users)]


@pytest.mark.parametrize(("users", "expected"), [(9, [1, 4, 4]), (8, [4, 4]), (10, [2, 4, 4])])
def test_all_batches_but_the_last_have_the_number_of_targets_asked_for(users, expected):
    histories = packed(*[[1, 2]] * users)
    batches = training_batches(histories, training_windows(histories, 9), 4, np.random.default_rng(0))
    assert sorted(len(batch.items) for batch in batches) == expected


def test_a_part_has_the_histories_of_its_rows(many):
    part = many.part(2, 5)
    expected = [many.values[many.offsets[n] : many.offsets[n + 1]].tolist() for n in (2, 3, 4)]
    assert [part.values[part.offsets[n] : part.offsets[n + 1]].tolist() for n in range(3)] == expected
