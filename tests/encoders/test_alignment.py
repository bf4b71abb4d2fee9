import math

import pytest
import torch
import torch.nn.functional as F

from stages.encoders.alignment import Adapter, alignment_metrics, info_nce


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(0)), dim=-1)


def naive_info_nce(anchors, positives, anchor_items, positive_items, tau):
    """Eqs. 2 and 3 in loops over floats."""
    total = 0.0
    for i in range(len(anchors)):
        candidates = [
            j for j in range(len(anchors)) if j == i or positive_items[j] not in (positive_items[i], anchor_items[i])
        ]
        scores = {j: math.exp(float(anchors[i] @ positives[j]) / tau) for j in candidates}
        total -= math.log(scores[i] / sum(scores.values()))
    return total / len(anchors)


@pytest.mark.parametrize("tau", [0.05, 0.5])
@pytest.mark.parametrize(
    ("anchor_items", "positive_items"),
    [
        ([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]),  # all different
        ([1, 2, 3, 4, 5, 6], [7, 8, 7, 9, 8, 7]),  # positives that occur several times
        ([1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5]),  # each anchor is the positive of another row
        ([1, 1, 1, 2, 2, 3], [2, 3, 4, 1, 4, 1]),  # an anchor in several rows
        ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),  # text to image: an item is its own positive
        ([1, 2, 3, 1, 2, 3], [1, 2, 3, 1, 2, 3]),  # the same with repeated items
    ],
)
def test_info_nce_equals_the_equation_in_loops(anchor_items, positive_items, tau):
    vectors = unit(12, 8)
    anchors, positives = vectors[:6], vectors[6:]
    loss = info_nce(anchors, positives, torch.tensor(anchor_items), torch.tensor(positive_items), tau)
    assert loss.shape == ()
    assert float(loss) == pytest.approx(naive_info_nce(anchors, positives, anchor_items, positive_items, tau), rel=1e-4)


def test_info_nce_is_zero_if_no_other_row_is_a_negative():
    vectors = unit(4, 8)
    loss = info_nce(vectors[:2], vectors[2:], torch.tensor([1, 2]), torch.tensor([5, 5]), 0.05)
    assert float(loss) == 0.0


def test_the_positive_of_another_row_is_a_negative_in_one_direction_only():
    vectors = unit(4, 8)
    anchors, positives = vectors[:2], vectors[2:]
    loss = info_nce(anchors, positives, torch.tensor([1, 2]), torch.tensor([5, 1]), 0.05)
    scores = anchors @ positives.T / 0.05  # row 1's positive is row 0's anchor, row 0's positive is new to row 1
    torch.testing.assert_close(loss, (torch.logsumexp(scores[1], 0) - scores[1, 1]) / 2)


def test_info_nce_has_finite_gradients_with_false_negatives():
    vectors = unit(6, 8).requires_grad_()
    info_nce(vectors[:3], vectors[3:], torch.tensor([1, 2, 3]), torch.tensor([4, 4, 1]), 0.05).backward()
    assert torch.isfinite(vectors.grad).all()
    assert vectors.grad.abs().sum() > 0


def test_an_adapter_is_two_layers_with_a_relu_and_a_normalisation():
    torch.manual_seed(0)
    adapter, vectors = Adapter(10), torch.randn(5, 10)
    first, _, second = adapter.layers
    assert first.weight.shape == (128, 10)
    assert second.weight.shape == (64, 128)
    hidden = (vectors @ first.weight.T + first.bias).clamp(min=0)
    expected = hidden @ second.weight.T + second.bias
    torch.testing.assert_close(adapter(vectors), expected / expected.norm(dim=1, keepdim=True))


def naive_metrics(anchors, positives, anchor_items, positive_items, all_items):
    ranks, own, other = [], [], []
    for i in range(len(anchors)):
        score = float((anchors[i] * positives[i]).sum())
        rest = [
            float((anchors[i] * vector).sum())
            for item, vector in enumerate(all_items, 1)
            if item not in (anchor_items[i], positive_items[i])
        ]
        ranks.append(1 + sum(value >= score for value in rest))
        own.append(score)
        other += rest
    return {
        "mean_rank": sum(ranks) / len(ranks),
        "positive": sum(own) / len(own),
        "negative": sum(other) / len(other),
    }


@pytest.mark.parametrize(
    ("anchor_items", "positive_items"),
    [([1, 2, 3, 7], [4, 1, 9, 2]), ([1, 5, 10], [1, 5, 10]), ([3, 3, 3], [1, 2, 10])],
)
def test_metrics_equal_their_definition_in_loops(anchor_items, positive_items):
    all_items = unit(10, 3)
    anchors, positives = all_items[torch.tensor(anchor_items) - 1], all_items[torch.tensor(positive_items) - 1]
    metrics = alignment_metrics(anchors, positives, torch.tensor(anchor_items), torch.tensor(positive_items), all_items)
    expected = naive_metrics(anchors, positives, anchor_items, positive_items, all_items)
    assert metrics == pytest.approx(expected, rel=1e-5)
    assert len(set(metrics.values())) == 3


def test_perfect_alignment_has_rank_one():
    items = torch.arange(1, 5)
    perfect = alignment_metrics(torch.eye(4), torch.eye(4), items, items, torch.eye(4))
    assert perfect == {"mean_rank": 1.0, "positive": 1.0, "negative": 0.0}


def test_ties_count_against_the_model():
    all_items = torch.eye(3)[[0, 1, 1]]  # items 2 and 3 have the same vector
    metrics = alignment_metrics(all_items[:1], all_items[1:2], torch.tensor([1]), torch.tensor([2]), all_items)
    assert metrics["mean_rank"] == 2.0


def test_metrics_need_no_gradient():
    all_items = unit(3, 4).requires_grad_()
    items = torch.arange(1, 4)
    assert alignment_metrics(all_items, all_items, items, items, all_items)["positive"] == pytest.approx(1.0)
