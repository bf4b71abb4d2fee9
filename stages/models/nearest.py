"""An item's nearest items by content, and how much each of them counts."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

NEIGHBOURS = 10
TEMPERATURE = 0.1  # of the softmax over the neighbours' cosines
SCORES_PER_BLOCK = 2**25  # 128 MB
NO_DIRECTION = 0.05  # a vector this near the mean, as a share of the usual distance, says nothing of its item


class Neighbours(NamedTuple):
    """The nearest items of n items, nearest first. items: (n, k) in 1…N. weights: (n, k), a row sums to 1."""

    items: Tensor
    weights: Tensor

    def mean(self, vectors: Float[Tensor, "N D"]) -> Float[Tensor, "n D"]:
        """Weighted mean of the neighbours' vectors. vectors: of all items, row i − 1 is item i."""
        return (vectors[self.items - 1] * self.weights[..., None]).sum(dim=1)


def unit_content(
    vectors: dict[str, Float[Tensor, "N _"]],
    centre: Bool[Tensor, " N"] | None = None,
    embedded: Bool[Tensor, " N"] | None = None,
) -> Float[Tensor, "N W"]:
    """A vector of each item, whose inner products are cosines, averaged over the kinds of vectors.

    vectors: {kind: (N, width)}, from which the mean of the items in `centre` is subtracted first (None: of all).
    An item without a cover has the mean vector of those that were `embedded` (None: all): it says nothing of the item,
    so its cosines of that kind are 0.
    """
    units = []
    for matrix in vectors.values():
        centred = matrix - (matrix if centre is None else matrix[centre]).mean(dim=0)
        mean = (matrix if embedded is None else matrix[embedded]).mean(dim=0)
        distance = (matrix - mean).norm(dim=-1, keepdim=True)
        nothing = distance < NO_DIRECTION * distance.square().mean().sqrt()
        units.append(F.normalize(centred, dim=-1).masked_fill(nothing, 0.0))
    return torch.cat(units, dim=-1) / len(units) ** 0.5


def nearest_items(units: Float[Tensor, "N D"], of: Int[Tensor, " n"], among: Int[Tensor, " m"]) -> Neighbours:
    """The NEIGHBOURS nearest of the items `among` to each of the items `of`, itself left out; fewer if there are fewer.

    units: of every item, see `unit_content`. Weights are the softmax of the cosines divided by TEMPERATURE.
    """
    others = units[among - 1]
    count = min(NEIGHBOURS, len(among) - int(torch.isin(of, among).any()))
    items, cosines = [], []
    for block in of.split(max(1, SCORES_PER_BLOCK // len(among))):
        scores = (units[block - 1] @ others.T).masked_fill(block[:, None] == among, float("-inf"))
        best = scores.topk(count, dim=1)
        items.append(among[best.indices])
        cosines.append(best.values)
    return Neighbours(torch.cat(items), (torch.cat(cosines) / TEMPERATURE).softmax(dim=1))
