"""The alignment losses of section 3.3.2, and the adapters into the shared space in which they are computed."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

HIDDEN, SHARED = 128, 64


class Adapter(nn.Module):
    """Two linear layers from an encoder's vector to a unit vector of the shared space.

    Unit length bounds the inner product of eqs. 2 and 3; without it the losses can fall by growing norms alone.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, SHARED))

    def forward(self, vectors: Float[Tensor, "n width"]) -> Float[Tensor, "n shared"]:
        return F.normalize(self.layers(vectors), dim=-1)


def info_nce(
    anchors: Float[Tensor, "n D"],
    positives: Float[Tensor, "n D"],
    anchor_items: Int[Tensor, " n"],
    positive_items: Int[Tensor, " n"],
    tau: float,
) -> Float[Tensor, ""]:
    """InfoNCE with inner products and in-batch negatives, without false negatives (paper eqs. 2 and 3).

    anchor_items, positive_items: the item that each row's vector belongs to. The positive of another row is not used
    as a negative of row i if it is the item of row i's own positive or of its anchor.
    """
    scores = anchors @ positives.T / tau  # (n, n)
    same = (positive_items[None, :] == positive_items[:, None]) | (positive_items[None, :] == anchor_items[:, None])
    same.fill_diagonal_(False)
    return F.cross_entropy(scores.masked_fill(same, float("-inf")), torch.arange(len(scores), device=scores.device))


@torch.no_grad()
def alignment_metrics(
    anchors: Float[Tensor, "n D"],
    positives: Float[Tensor, "n D"],
    anchor_items: Int[Tensor, " n"],
    positive_items: Int[Tensor, " n"],
    all_items: Float[Tensor, "N D"],
) -> dict[str, float]:
    """Mean rank of the positive among all items, and mean similarity to the positive and to the other items.

    All vectors have unit length; row i − 1 of all_items is item i, 1…N. Rank 1 is best, ties count against the model;
    the anchor's own item is left out of the others.
    """
    scores = anchors @ all_items.T  # (n, N)
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
