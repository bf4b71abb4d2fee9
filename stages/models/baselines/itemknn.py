"""Item-to-item neighbours by co-occurrence in a window: seconds to fit and hard to beat (Ludewig et al. 2021).

What followed an item soon in other histories is what follows it next: j after i at a distance of g items counts 1 / g,
j before i half of that; popular items are weakened; the items of a history count less the further back they stand.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stages.models.baselines.material import Material

WINDOW = 5
BACKWARD = 0.5
POPULARITY_EXPONENT = 0.3
DECAYS = (0.2, 0.4, 0.6, 0.8, 1.0)  # of which the one that validates best is taken


@dataclass(frozen=True, kw_only=True)
class ItemKnnConfig:
    items: int  # N
    decay: float  # weight of a history's item relative to the one after it


def similarities(values: np.ndarray, offsets: np.ndarray, items: int) -> Tensor:
    """What each item of a history gives each candidate. → (N, N), row i − 1 is the history's item i.

    values, offsets: packed training histories, user u's are `values[offsets[u]:offsets[u + 1]]`.
    """
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    similarity = np.zeros((items, items), dtype=np.float64)
    for gap in range(1, WINDOW + 1):
        together = owner[gap:] == owner[:-gap]
        earlier, later = values[:-gap][together] - 1, values[gap:][together] - 1
        np.add.at(similarity, (earlier, later), 1 / gap)
        np.add.at(similarity, (later, earlier), BACKWARD / gap)
    counts = np.bincount(values - 1, minlength=items)
    similarity /= np.maximum(counts, 1)[None, :] ** POPULARITY_EXPONENT
    return torch.from_numpy(similarity).float()


class ItemKnn(nn.Module):
    """A score is the weighted sum of the history's items' similarities to the candidate."""

    def __init__(self, config: ItemKnnConfig, similarity: Tensor) -> None:
        """similarity: (N, N), see `similarities`."""
        super().__init__()
        self.config = config
        self.register_buffer("similarity", similarity)

    def last_hidden(self, items: Tensor) -> Tensor:
        """How much each item of the history counts. items: (B, L), 0 = padding at the right → (B, N)."""
        age = (items > 0).sum(dim=1, keepdim=True) - 1 - torch.arange(items.shape[1], device=items.device)
        weight = torch.where(items > 0, self.config.decay ** age.clamp(min=0).to(self.similarity.dtype), 0.0)
        hidden = self.similarity.new_zeros(len(items), self.config.items + 1)
        return hidden.scatter_add_(1, items, weight)[:, 1:]

    def item_matrix(self) -> Tensor:
        """Row j − 1: what each history item gives candidate j. → (N, N)."""
        return self.similarity.T


def build(material: Material) -> ItemKnn:
    """ItemKNN with the decay that validates best."""
    m = material
    similarity = similarities(m.values, m.offsets, m.items)
    return max((ItemKnn(ItemKnnConfig(items=m.items, decay=decay), similarity) for decay in DECAYS), key=m.validate)
