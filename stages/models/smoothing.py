"""Targets smoothed by content: a share of each target's probability goes to its nearest items (param `smoothing`)."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class Smoothing(nn.Module):
    """The nearest items of each item, and the share ε of a target's probability that they divide among them.

    Relatives: label smoothing (Szegedy et al. 2016), SimRec (Brody & Lagziel 2024).
    """

    items: Tensor
    weights: Tensor

    def __init__(self, share: float, items: Int[Tensor, "N k"], weights: Float[Tensor, "N k"]) -> None:
        """share: ε. items, weights: the nearest items of each item, and how they divide ε (a row sums to 1)."""
        super().__init__()
        self.share = share
        self.register_buffer("items", items, persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def nearest(self, targets: Int[Tensor, " P"]) -> Int[Tensor, "P k"]:
        """The nearest items of each target. targets: 0 = none, which gets those of item N."""
        return self.items[targets - 1]

    def penalty(
        self,
        states: Float[Tensor, "P D"],
        targets: Int[Tensor, " P"],
        vectors: Float[Tensor, "n D"],
        *,
        own: Int[Tensor, " P"],
        near: Int[Tensor, "P k"],
    ) -> Float[Tensor, " P"]:
        """What the cross-entropy with the smoothed target adds to that with the target alone.

        It is ε · (the target's score − the weighted mean score of its nearest items): the normaliser (log-sum-exp) is
        the same in both. own, near: the rows of `vectors` with the targets' vectors, and with those of `nearest`.
        """
        weights = self.weights[targets - 1][..., None]
        mean = (F.embedding(near, vectors) * weights).sum(dim=1)
        return self.share * (states * (F.embedding(own, vectors) - mean)).sum(dim=1)
