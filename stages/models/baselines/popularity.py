"""Popularity: every user gets the items that training saw most often."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stages.models.baselines.material import Material


@dataclass(frozen=True, kw_only=True)
class PopularityConfig:
    items: int  # N


class Popularity(nn.Module):
    """An item's score is how often it stands in the training histories."""

    def __init__(self, config: PopularityConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("counts", torch.zeros(config.items, 1))

    def count(self, values: np.ndarray) -> None:
        """Learn from the items of all training histories, in 1…N."""
        counts = np.bincount(values, minlength=self.config.items + 1)[1:]
        self.counts.copy_(torch.from_numpy(counts)[:, None])

    def last_hidden(self, items: Tensor) -> Tensor:
        """The same for everyone. items: (B, L) → (B, 1)."""
        return self.counts.new_ones(len(items), 1)

    def item_matrix(self) -> Tensor:
        """Counts. → (N, 1)."""
        return self.counts


def build(material: Material) -> Popularity:
    """Item counts of the training histories."""
    model = Popularity(PopularityConfig(items=material.items))
    model.count(material.values)
    return model
