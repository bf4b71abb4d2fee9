import math

import pytest
import torch
import torch.nn.functional as F

from stages.encoders.alignment import Adapter, alignment_metrics, info_nce


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


def test_info_nce_equals_the_equation_written_out():
    torch.manual_seed(0)
    anchors, positives, items = unit(6, 4), unit(6, 4), torch.arange(1, 13)
    expected = 0.0
    for i in range(6):
        scores = [math.exp(float(anchors[i] @ positives[j]) / 0.05) for j in range(6)]
        expected -= math.log(scores[i] / sum(scores)) / 6
    assert float(info_nce(anchors, positives, items[:6], items[6:], 0.05)) == pytest.approx(expected, rel=1e-4)


def test_the_same_positive_twice_is_no_negative():
    torch.manual_seed(0)
    anchors, positives = unit(3, 4), unit(3, 4)
    positives[2] = positives[0]
    loss = info_nce(anchors, positives, torch.tensor([1, 2, 3]), torch.tensor([7, 8, 7]), 0.05)
    scores = anchors @ positives.T / 0.05
    rows = [scores[0, [0, 1]], scores[1], scores[2, [1, 2]]]
    expected = sum(torch.logsumexp(row, 0) for row in rows) - scores.diagonal().sum()
    torch.testing.assert_close(loss, expected / 3)


def test_an_anchor_is_no_negative_of_itself():
    torch.manual_seed(0)
    anchors, positives = unit(2, 4), unit(2, 4)
    loss = info_nce(anchors, positives, torch.tensor([1, 2]), torch.tensor([5, 1]), 0.05)
    scores = anchors @ positives.T / 0.05
    torch.testing.assert_close(loss, (torch.logsumexp(scores[1], 0) - scores[1, 1]) / 2)


def test_adapters_end_on_the_unit_sphere():
    torch.testing.assert_close(Adapter(10)(torch.randn(5, 10)).norm(dim=-1), torch.ones(5))


def test_metrics_of_perfect_and_of_hand_made_alignment():
    everything = torch.eye(4)
    items = torch.arange(1, 5)
    perfect = alignment_metrics(everything, everything, items, items, everything)
    assert perfect == {"mean_rank": 1.0, "positive": 1.0, "negative": 0.0}
    # item 1's partner is item 2; item 3 is nearer to item 1 than item 2 is
    everything = F.normalize(torch.tensor([[1.0, 0], [1, 1], [1, 0.1]]), dim=-1)
    metrics = alignment_metrics(everything[:1], everything[1:2], torch.tensor([1]), torch.tensor([2]), everything)
    assert metrics["mean_rank"] == 2.0
