import numpy as np
import polars as pl
import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from stages.data.histories import Histories
from stages.training.ranking import (
    SCORES_PER_BLOCK,
    USERS_PER_BLOCK,
    count_above,
    rank_targets,
    rank_users,
    rank_users_with_viewed_kept,
    target_scores,
    viewed_items,
)
from tests.parallel.fake_cuda import fake_cuda

CPU = torch.device("cpu")


def test_ranks_equal_the_places_in_a_sort_with_viewed_items_kept_and_filtered():
    torch.manual_seed(0)
    scores, targets, viewed = torch.randn(50, 30), torch.randint(1, 31, (50,)), torch.randint(0, 31, (50, 9))
    kept, filtered = rank_targets(scores, targets, viewed)
    for row in range(50):
        order = (scores[row].argsort(descending=True) + 1).tolist()
        target = int(targets[row])
        unseen = [item for item in order if item == target or item not in viewed[row]]
        assert int(kept[row]) == order.index(target) + 1
        assert int(filtered[row]) == unseen.index(target) + 1


def test_ties_count_against_the_target():
    assert count_above(torch.zeros(2, 7), torch.zeros(2, 1)).tolist() == [7, 7]


def test_nan_scores_are_refused():
    scores = torch.zeros(2, 3)
    scores[1, 0] = float("nan")
    with pytest.raises(ValueError, match="^scores hold NaN$"):
        count_above(scores, scores[:, 1:2])


def test_only_the_filtered_ranking_leaves_out_viewed_items():
    hidden, items = torch.tensor([[1.0]]), torch.tensor([[4.0], [3.0], [2.0], [1.0]])
    kept, filtered = rank_targets(hidden @ items.T, torch.tensor([3]), torch.tensor([[1, 2, 0]]))
    assert kept.tolist() == [3]
    assert filtered.tolist() == [1]


def test_a_target_that_was_viewed_stays_in_the_filtered_ranking():
    hidden, items = torch.tensor([[1.0]]), torch.tensor([[4.0], [3.0], [2.0]])
    _, filtered = rank_targets(hidden @ items.T, torch.tensor([2]), torch.tensor([[2, 3]]))
    assert filtered.tolist() == [2]


class LastItem:
    """Scores item i + 1 of 10 best after item i. blocks: how many users each call ranked."""

    def __init__(self, device=CPU):
        self.device, self.blocks = device, []

    def last_hidden(self, items):
        self.blocks.append(len(items))
        last = items[torch.arange(len(items), device=self.device), (items > 0).sum(dim=1) - 1]
        return torch.nn.functional.one_hot(last % 10, 10).float()

    def item_matrix(self):
        return torch.eye(10, device=self.device)


class FirstItem(LastItem):
    """Scores with the opposite sign: item i + 1 is the worst after item i."""

    def scores(self, hidden, items):
        return -hidden @ items.T


HISTORIES = Histories.from_frame(pl.DataFrame({"items": [[1, 2, 3], [5], [1, 8], [2, 4, 6, 7]]}))
TARGETS = np.array([4, 6, 9, 1])
KEPT, FILTERED = [1, 1, 1, 10], [1, 1, 1, 6]


def ranks(model, device=CPU, max_length=50):
    return [r.tolist() for r in rank_users(model, HISTORIES, TARGETS, max_length=max_length, device=device)]


def test_users_are_ranked_in_the_order_of_the_histories():
    model = LastItem()
    assert ranks(model) == [KEPT, FILTERED]
    assert model.blocks == [4]


def test_the_ranks_with_viewed_items_kept_can_be_had_alone():
    ranks_alone = rank_users_with_viewed_kept(LastItem(), HISTORIES, TARGETS, max_length=50, device=CPU)
    assert ranks_alone.tolist() == KEPT


def test_all_viewed_items_are_filtered_although_the_model_reads_only_the_latest():
    assert ranks(LastItem(), max_length=1) == [KEPT, FILTERED]


def test_a_model_s_own_scores_are_ranked():
    assert ranks(FirstItem())[0] == [10, 10, 10, 9]


@pytest.mark.parametrize(("scores", "blocks"), [(2**25, [3, 1]), (25, [2, 2]), (5, [1, 1, 1, 1])])
def test_the_size_of_a_block_does_not_change_the_ranks(monkeypatch, scores, blocks):
    monkeypatch.setattr("stages.training.ranking.USERS_PER_BLOCK", 3)
    monkeypatch.setattr("stages.training.ranking.SCORES_PER_BLOCK", scores)
    model = LastItem()
    assert ranks(model) == [KEPT, FILTERED]
    assert model.blocks == blocks


@pytest.mark.parametrize("widest", [1, 8, 2**22])
def test_the_size_of_the_parts_of_viewed_items_does_not_change_the_ranks(monkeypatch, widest):
    monkeypatch.setattr("stages.training.ranking.VIEWED_PER_PART", widest)
    assert ranks(LastItem()) == [KEPT, FILTERED]


def test_the_users_beside_a_very_long_history_are_not_padded_to_its_length(monkeypatch):
    monkeypatch.setattr("stages.training.ranking.VIEWED_PER_PART", 8)
    users = np.array([1, 3, 0])
    parts = [(users[part].tolist(), viewed.tolist()) for part, viewed in viewed_items(HISTORIES, users, CPU)]
    assert parts == [([1, 3], [[5, 0, 0, 0], [2, 4, 6, 7]]), ([0], [[1, 2, 3]])]


def test_scores_are_counted_in_parts(monkeypatch):
    scores, targets = torch.randn(5, 10), torch.tensor([1, 4, 7, 10, 3])
    whole = count_above(scores, target_scores(scores, targets))
    monkeypatch.setattr("stages.training.ranking.ITEMS_PER_COUNT", 3)
    assert count_above(scores, target_scores(scores, targets)).tolist() == whole.tolist()


def test_a_block_has_256_users_or_128_megabytes_of_scores():
    assert USERS_PER_BLOCK == 256
    assert SCORES_PER_BLOCK * torch.finfo(torch.float32).bits / 8 == 128 * 2**20


def test_each_of_two_processes_ranks_every_other_block(monkeypatch):
    monkeypatch.setattr("stages.training.ranking.USERS_PER_BLOCK", 1)
    shares = []
    for rank in (0, 1):
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=2)  # its all_reduce sums nothing
        model = LastItem()
        shares.append(np.array(ranks(model)))
        dist.destroy_process_group()
        assert model.blocks == [1, 1]
    assert (shares[0] + shares[1]).tolist() == [KEPT, FILTERED]


def test_ranks_on_a_gpu_equal_those_on_the_cpu():
    with fake_cuda() as gpu:
        assert ranks(LastItem(gpu), gpu) == [KEPT, FILTERED]
