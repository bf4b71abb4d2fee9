import numpy as np
import polars as pl
import pytest
import torch

from stages.data.histories import Histories
from stages.training.ranking import count_above, rank_targets, rank_users


def test_ranks_equal_a_sort_without_and_with_the_viewed_items_taken_out():
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


def test_nan_is_refused():
    scores = torch.zeros(2, 3)
    scores[1, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        count_above(scores, scores[:, 1:2])


def test_viewed_items_are_left_out_of_the_filtered_ranking_only():
    hidden, items = torch.tensor([[1.0]]), torch.tensor([[4.0], [3.0], [2.0], [1.0]])
    kept, filtered = rank_targets(hidden @ items.T, torch.tensor([3]), torch.tensor([[1, 2, 0]]))
    assert kept.tolist() == [3]
    assert filtered.tolist() == [1]


def test_a_target_that_was_viewed_stays_in_the_filtered_ranking():
    hidden, items = torch.tensor([[1.0]]), torch.tensor([[4.0], [3.0], [2.0]])
    _, filtered = rank_targets(hidden @ items.T, torch.tensor([2]), torch.tensor([[2, 3]]))
    assert filtered.tolist() == [2]


class LastItem:
    """Scores item i + 1 best after item i."""

    def last_hidden(self, items):
        last = items[torch.arange(len(items)), (items > 0).sum(dim=1) - 1]
        return torch.nn.functional.one_hot(last % 10, 10).float()

    def item_matrix(self):
        return torch.eye(10)


def test_users_are_ranked_in_their_own_order_whatever_the_blocks():
    histories = Histories.from_frame(pl.DataFrame({"items": [[1, 2, 3], [5], [1, 8], [2, 4, 6, 7]]}))
    kept, filtered = rank_users(
        LastItem(), histories, np.array([4, 6, 9, 1]), max_length=50, device=torch.device("cpu")
    )
    assert kept.tolist() == [1, 1, 1, 10]
    assert filtered.tolist() == [1, 1, 1, 6]
