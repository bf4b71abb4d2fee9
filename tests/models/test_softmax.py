import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stages.models.smoothing import Smoothing
from stages.models.softmax import (
    Sampler,
    cross_entropy_over_all,
    cross_entropy_over_sample,
    negative_sampler,
    next_item_loss,
)

COUNTS = np.array([50, 0, 10, 30, 10])  # of items 1…5


def table() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(5, 4)


def candidates(items):
    return table() if items is None else table()[items - 1]


def test_without_a_sampler_the_loss_is_cross_entropy_over_all_items():
    states, targets = torch.randn(3, 4), torch.tensor([1, 5, 2])
    expected = F.cross_entropy(states @ table().T, targets - 1)
    torch.testing.assert_close(next_item_loss(states, targets, candidates, None), expected)


@pytest.mark.parametrize("items", [5, 16, 33])
def test_cross_entropy_over_all_items_and_its_gradients_are_those_of_torch(items):
    torch.manual_seed(0)
    states, vectors = torch.randn(7, 4, requires_grad=True), torch.randn(items, 4, requires_grad=True)
    targets, weights = torch.randint(1, items + 1, (7,)), torch.rand(7)
    ours = cross_entropy_over_all(states, vectors, targets)
    expected = F.cross_entropy(states @ vectors.T, targets - 1, reduction="none")
    torch.testing.assert_close(ours, expected)
    gradients = (torch.autograd.grad(loss @ weights, (states, vectors)) for loss in (ours, expected))
    for ours_, expected_ in zip(*gradients, strict=True):
        torch.testing.assert_close(ours_, expected_)


def test_cross_entropy_of_large_scores_is_finite():
    states, vectors = torch.full((1, 1), 1e4), torch.tensor([[1.0], [-1.0]])
    assert cross_entropy_over_all(states, vectors, torch.tensor([1])).tolist() == [0.0]
    assert cross_entropy_over_all(states, vectors, torch.tensor([2])).tolist() == [2e4]


def test_cross_entropy_over_a_sample_and_its_gradients_are_those_of_torch():
    torch.manual_seed(0)
    states, own, negatives = (torch.randn(rows, 4, requires_grad=True) for rows in (7, 7, 9))
    log_expected, equal, weights = torch.randn(9), torch.rand(7, 9) < 0.3, torch.rand(7)
    ours = cross_entropy_over_sample(states, own, negatives, log_expected, equal)
    others = (states @ negatives.T - log_expected).masked_fill(equal, float("-inf"))
    scores = torch.cat([(states * own).sum(dim=1, keepdim=True), others], dim=1)
    expected = F.cross_entropy(scores, torch.zeros(7, dtype=torch.long), reduction="none")
    torch.testing.assert_close(ours, expected)
    gradients = (torch.autograd.grad(loss @ weights, (states, own, negatives)) for loss in (ours, expected))
    for ours_, expected_ in zip(*gradients, strict=True):
        torch.testing.assert_close(ours_, expected_)


def test_half_of_the_negatives_are_uniform_and_half_follow_training():
    torch.manual_seed(0)
    items, log_expected = Sampler(torch.from_numpy(COUNTS), 200_000).draw()
    share = torch.bincount(items, minlength=6)[1:].double() / len(items)
    expected = (torch.full((5,), 0.2) + torch.from_numpy(COUNTS) / 100) / 2
    torch.testing.assert_close(share, expected.double(), atol=0.005, rtol=0)
    torch.testing.assert_close(log_expected.double(), (200_000 * expected[items - 1]).log().double())


def test_of_an_odd_number_of_negatives_one_more_is_uniform():
    occurrences = np.repeat([1, 2, 3, 4, 5], COUNTS)
    torch.manual_seed(0)
    uniform, places = torch.randint(5, (201,)), torch.randint(100, (200,))
    torch.manual_seed(0)
    items, log_expected = Sampler(torch.from_numpy(COUNTS), 401).draw()
    expected = 201 / 5 + 200 * torch.from_numpy(COUNTS).double() / 100
    torch.testing.assert_close(log_expected, expected.log().float()[items - 1])
    assert items.tolist() == [*(uniform + 1).tolist(), *occurrences[places].tolist()]


def test_a_sampler_has_no_state_to_save():
    assert not Sampler(torch.from_numpy(COUNTS), 7).state_dict()


def test_a_large_sample_has_the_partition_sum_of_the_whole_catalogue():
    torch.manual_seed(1)
    states, targets = torch.randn(4, 4), torch.tensor([1, 5, 2, 3])
    sampler = Sampler(torch.from_numpy(COUNTS), 400_000)
    whole = next_item_loss(states, targets, candidates, None)
    torch.testing.assert_close(next_item_loss(states, targets, candidates, sampler), whole, atol=0.01, rtol=0)


def test_a_target_is_never_its_own_negative():
    torch.manual_seed(2)
    states, targets = torch.zeros(1, 4), torch.tensor([1])
    only_the_target = Sampler(torch.tensor([7]), 6)
    loss = next_item_loss(states, targets, lambda items: torch.ones(len(items), 4), only_the_target)
    assert loss == 0


@pytest.mark.parametrize("scale", [0.1, 5.0])
def test_the_sampled_loss_equals_the_sum_written_out(scale):
    states, targets = torch.randn(2, 4) * scale, torch.tensor([4, 1])
    sampler = Sampler(torch.from_numpy(COUNTS), 7)
    torch.manual_seed(3)
    items, log_expected = sampler.draw()
    losses = []
    for state, target in zip(states, targets, strict=True):
        own = (state @ table()[target - 1]).exp()
        others = sum(
            (state @ table()[item - 1] - q).exp() for item, q in zip(items, log_expected, strict=True) if item != target
        )
        losses.append(-(own / (own + others)).log())
    torch.manual_seed(3)
    torch.testing.assert_close(next_item_loss(states, targets, candidates, sampler), torch.stack(losses).mean())


def test_negatives_all_gives_no_sampler_and_a_number_one_of_that_size():
    assert negative_sampler("all", COUNTS) is None
    sampler = negative_sampler(16, COUNTS)
    assert sampler.size == 16
    assert torch.equal(sampler.cumulative, torch.tensor([50, 50, 60, 90, 100]))


NEAR = torch.tensor([[2, 3], [1, 5], [5, 1], [3, 2], [4, 1]])
SMOOTHING = Smoothing(0.3, NEAR, torch.tensor([[0.75, 0.25]]).expand(5, 2))


def test_smoothed_targets_give_the_cross_entropy_with_the_distribution_written_out():
    states, targets = torch.randn(3, 4), torch.tensor([1, 5, 2])
    wanted = torch.zeros(3, 5)
    for row, target in enumerate(targets.tolist()):
        wanted[row, target - 1] = 0.7
        wanted[row, NEAR[target - 1, 0] - 1] = 0.3 * 0.75
        wanted[row, NEAR[target - 1, 1] - 1] = 0.3 * 0.25
    expected = F.cross_entropy(states @ table().T, wanted)
    torch.testing.assert_close(next_item_loss(states, targets, candidates, None, SMOOTHING), expected)


def test_with_a_sampler_smoothing_adds_the_same_as_over_all_items():
    states, targets, sampler = torch.randn(3, 4), torch.tensor([1, 5, 2]), Sampler(torch.from_numpy(COUNTS), 6)
    added = []
    for negatives in (None, sampler):
        losses = []
        for smoothing in (SMOOTHING, None):
            torch.manual_seed(1)
            losses.append(next_item_loss(states, targets, candidates, negatives, smoothing))
        added.append(losses[0] - losses[1])
    torch.testing.assert_close(added[0], added[1])
    assert added[0].abs() > 0.01


@pytest.mark.parametrize("negatives", [None, 6])
@pytest.mark.parametrize("smoothing", [None, SMOOTHING])
def test_positions_without_a_target_do_not_change_the_loss(negatives, smoothing):
    states, targets = torch.randn(4, 4), torch.tensor([1, 0, 5, 0])
    sampler = negatives and Sampler(torch.from_numpy(COUNTS), negatives)
    some = targets > 0
    torch.manual_seed(1)
    expected = next_item_loss(states[some], targets[some], candidates, sampler, smoothing)
    torch.manual_seed(1)
    torch.testing.assert_close(next_item_loss(states, targets, candidates, sampler, smoothing), expected)


def test_smoothing_has_no_state_to_save():
    assert not SMOOTHING.state_dict()
