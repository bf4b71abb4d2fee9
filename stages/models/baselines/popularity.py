"""Popularity: every user gets the items that occur most often in training."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stages.models.baselines.material import Material
from stages.models.recommender import Recommender


@dataclass(frozen=True, kw_only=True)
class PopularityConfig:
    items: int  # N


class Popularity(Recommender):
    """An item's score is how often it occurs in the training histories."""

    counts: Tensor

    def __init__(self, config: PopularityConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("counts", torch.zeros(config.items, 1))

    def count(self, values: Int[np.ndarray, " interactions"]) -> None:
        """Count the items, 1…N, of all training histories."""
        counts = np.bincount(values, minlength=self.config.items + 1)[1:]
        self.counts.copy_(torch.from_numpy(counts)[:, None])

    def last_hidden(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B 1"]:
        """1 for every user."""
        return self.counts.new_ones(len(items), 1)

    def item_matrix(self) -> Float[Tensor, "N 1"]:
        """How often each item occurs in training."""
        return self.counts


def build(material: Material) -> Popularity:
    """Item counts of the training histories."""
    model = Popularity(PopularityConfig(items=material.items))
    model.count(material.values)
    return model


def restore(config: dict[str, Any]) -> Popularity:
    """The system with this configuration, for the counts that were saved."""
    return Popularity(PopularityConfig(**config))
