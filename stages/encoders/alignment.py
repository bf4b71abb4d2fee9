"""The alignment losses of section 3.3.2 and what they are computed on: adapters into one shared space."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN, SHARED = 128, 64


class Adapter(nn.Module):
    """Two layers from an encoder's vector to a unit vector of the shared space. (n, width) → (n, 64).

    Unit length bounds the inner product of eqs. 2 and 3; without it the losses can fall by growing norms alone.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, SHARED))

    def forward(self, vectors: Tensor) -> Tensor:
        return F.normalize(self.layers(vectors), dim=-1)


def info_nce(anchors: Tensor, positives: Tensor, anchor_items: Tensor, positive_items: Tensor, tau: float) -> Tensor:
    """InfoNCE with inner products and in-batch negatives (eqs. 2 and 3), false negatives left out.

    anchors, positives (n, d); anchor_items, positive_items (n,): row i's anchor and positive. Another row's positive
    is no negative when it is row i's own positive or its anchor.
    """
    scores = anchors @ positives.T / tau  # (n, n)
    same = (positive_items[None, :] == positive_items[:, None]) | (positive_items[None, :] == anchor_items[:, None])
    same.fill_diagonal_(False)
    return F.cross_entropy(scores.masked_fill(same, float("-inf")), torch.arange(len(scores), device=scores.device))


@torch.no_grad()
def alignment_metrics(
    anchors: Tensor, positives: Tensor, anchor_items: Tensor, positive_items: Tensor, everything: Tensor
) -> dict[str, float]:
    """How well anchors find their partners among all items.

    anchors, positives (n, d) unit; everything (N, d): all items' vectors, row i − 1 is item i. → mean rank of the true
    partner (1 = best, the anchor itself left out when it is not the partner), mean similarity to partner and to others.
    """
    scores = anchors @ everything.T  # (n, N)
    own = (anchors * positives).sum(dim=1)
    others = torch.ones_like(scores, dtype=torch.bool)
    rows = torch.arange(len(scores), device=scores.device)
    others[rows, anchor_items - 1] = False
    others[rows, positive_items - 1] = False
    rank = 1 + ((scores >= own[:, None]) & others).sum(dim=1)
    return {
        "mean_rank": float(rank.double().mean()),
        "positive": float(own.double().mean()),
        "negative": float(scores[others].double().mean()),
    }
