import numpy as np
import pytest
import torch

from stages.data.histories import Histories
from stages.training.fusion import SHARES, choose_weights, fused_ranks, search_weights, standardised, with_share
from stages.training.next_item import TrainingData
from stages.training.ranking import rank_users

CPU = torch.device("cpu")
USERS, ITEMS, LENGTH = 60, 20, 4


class RandomScores:
    """Scores that depend on the last item and on nothing else, with a mean and spread of the model's own."""

    def __init__(self, seed: int, *, scale: float = 1.0, shift: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        self.table = torch.from_numpy(rng.normal(shift, scale, size=(ITEMS, ITEMS)).astype(np.float32))

    def last_hidden(self, items):
        last = items[torch.arange(len(items)), (items > 0).sum(dim=1) - 1]
        return torch.nn.functional.one_hot(last - 1, ITEMS).float()

    def item_matrix(self):
        return self.table.T

    def of(self, history) -> np.ndarray:
        return self.table[history[-1] - 1].numpy().astype(np.float64)


MODELS = [RandomScores(0), RandomScores(1, scale=30, shift=-100), RandomScores(2, scale=0.1)]


@pytest.fixture
def data() -> TrainingData:
    rng = np.random.default_rng(3)
    histories = Histories(rng.integers(1, ITEMS + 1, USERS * LENGTH), np.arange(USERS + 1) * LENGTH)
    return TrainingData(histories, histories, rng.integers(1, ITEMS + 1, USERS), ITEMS, (), {})


def naive_ranks(models, weights, histories, targets) -> np.ndarray:
    """Kept and filtered ranks by a loop over users: standardise, add, count what is not below the target."""
    found = []
    for history, target in zip(histories.values.reshape(-1, LENGTH).tolist(), targets, strict=True):
        total = np.zeros(ITEMS)
        for model, weight in zip(models, weights, strict=True):
            scores = model.of(history)
            total += weight * (scores - scores.mean()) / scores.std()
        above = {item for item in range(1, ITEMS + 1) if total[item - 1] >= total[target - 1]}
        found.append((len(above), len(above - set(history) | {target})))
    return np.array(found).T


@pytest.mark.parametrize("weights", [(0.5, 0.3, 0.2), (0.0, 1.0, 0.0), (0.1, 0.0, 0.9)])
def test_the_ranks_are_those_of_standardised_scores_added_in_a_plain_loop(data, weights):
    tried = [weights, (1.0, 0.0, 0.0)]
    found = fused_ranks(MODELS, tried, data.histories, data.valid, max_length=LENGTH, device=CPU)
    assert found.shape == (2, 2, USERS)
    for ranks, each in zip(found, tried, strict=True):
        assert np.array_equal(ranks, naive_ranks(MODELS, each, data.histories, data.valid))


def test_a_weight_of_one_gives_the_ranks_of_that_system(data):
    (found,) = fused_ranks(MODELS[:2], [(0.0, 1.0)], data.histories, data.valid, max_length=LENGTH, device=CPU)
    assert np.array_equal(found, rank_users(MODELS[1], data.histories, data.valid, max_length=LENGTH, device=CPU))


def test_scores_are_standardised_by_row_and_equal_scores_become_zero():
    scores = torch.tensor([[1.0, 2.0, 6.0], [0.1, 0.1, 0.1]])
    deviation = np.std([1, 2, 6])
    expected = torch.tensor([[-2 / deviation, -1 / deviation, 3 / deviation], [0, 0, 0]])
    torch.testing.assert_close(standardised(scores), expected.float())


@pytest.mark.parametrize("monitor", ["hit@5", "filtered.hit@5", "filtered.ndcg@10"])
def test_two_systems_get_the_weights_with_the_best_validation_metric_of_the_whole_grid(data, monitor):
    pair = MODELS[:2]
    found, tried = choose_weights(pair, data, monitor=monitor, max_length=LENGTH, device=CPU)
    grid = [(share, round(1 - share, 4)) for share in SHARES]
    assert sorted(tried) == sorted(grid)
    for weights in grid:
        ranks = naive_ranks(pair, weights, data.before_valid, data.valid)[int(monitor.startswith("filtered."))]
        cutoff = int(monitor.split("@")[1])
        gains = np.ones(USERS) if "hit" in monitor else 1 / np.log2(ranks + 1)
        assert tried[weights] == pytest.approx(np.mean(gains * (ranks <= cutoff)))
    assert tried[found] == max(tried.values())
    assert len(set(tried.values())) > 3


def test_the_search_over_three_systems_ends_where_no_share_alone_improves_the_value():
    best = np.array([0.5, 0.3, 0.2])
    found, tried = search_weights(lambda new: [-float(np.square(best - weights).sum()) for weights in new], 3)
    assert tried[found] == max(tried.values())
    assert np.abs(best - found).max() < 0.06
    for system in range(3):
        assert all(tried[with_share(found, system, share)] <= tried[found] for share in SHARES)


def test_equal_weights_are_taken_when_all_weights_are_equally_good():
    assert search_weights(lambda new: [0.5] * len(new), 2)[0] == (0.5, 0.5)


def test_a_share_leaves_the_proportions_of_the_others():
    assert with_share((0.2, 0.2, 0.6), 0, 0.6) == (0.6, 0.1, 0.3)
    assert with_share((0.0, 1.0, 0.0), 1, 0.4) == (0.3, 0.4, 0.3)
