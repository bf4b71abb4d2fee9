"""Item-to-item neighbours by co-occurrence in a window: seconds to fit and hard to beat (Ludewig et al. 2021).

Item j that follows item i after g positions adds 1 / g to their similarity, one that precedes it half of that. Popular
candidates are weakened, and older items of a history count less.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from stages.models.baselines.material import Material
from stages.models.recommender import Recommender

WINDOW = 5
BACKWARD = 0.5
POPULARITY_EXPONENT = 0.3
DECAYS = (0.2, 0.4, 0.6, 0.8, 1.0)  # the one with the best validation metric is used


@dataclass(frozen=True, kw_only=True)
class ItemKnnConfig:
    items: int  # N
    pairs: int  # P, of items that occur within WINDOW positions
    decay: float  # weight of a history's item relative to the one after it


def similarities(
    values: Int[np.ndarray, " interactions"], offsets: Int[np.ndarray, " offsets"], items: int
) -> tuple[Int[Tensor, "2 P"], Float[Tensor, " P"]]:
    """Pairs of a history's item and a candidate, both counted from 0, and their similarities; of all others it is 0.

    values, offsets: packed training histories, user u's are `values[offsets[u]:offsets[u + 1]]`.
    """
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    seen, candidates, gains = [], [], []
    for gap in range(1, WINDOW + 1):
        together = owner[gap:] == owner[:-gap]
        earlier, later = values[:-gap][together] - 1, values[gap:][together] - 1
        seen += [earlier, later]
        candidates += [later, earlier]
        gains += [np.full(len(earlier), 1 / gap), np.full(len(earlier), BACKWARD / gap)]
    cells = np.concatenate(seen).astype(np.int64) * items + np.concatenate(candidates)
    cells, index = np.unique(cells, return_inverse=True)
    pairs = np.stack(np.divmod(cells, items))
    counts = np.bincount(values - 1, minlength=items)[pairs[1]]
    similarity = np.bincount(index, weights=np.concatenate(gains)) / counts**POPULARITY_EXPONENT
    return torch.from_numpy(pairs).int(), torch.from_numpy(similarity).float()


class ItemKnn(Recommender):
    """A score is the weighted sum of the similarities of the history's items to the candidate."""

    pairs: Tensor
    similarity: Tensor

    def __init__(self, config: ItemKnnConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("pairs", torch.zeros(2, config.pairs, dtype=torch.int32))
        self.register_buffer("similarity", torch.zeros(config.pairs))

    def last_hidden(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B N"]:
        """Weight of each item, 0 if the history does not have it. items: 0 = padding, at the right."""
        age = (items > 0).sum(dim=1, keepdim=True) - 1 - torch.arange(items.shape[1], device=items.device)
        weight = torch.where(items > 0, self.config.decay ** age.clamp(min=0).to(self.similarity.dtype), 0.0)
        hidden = self.similarity.new_zeros(len(items), self.config.items + 1)
        return hidden.scatter_add_(1, items, weight)[:, 1:]

    def item_matrix(self) -> Float[Tensor, "N N"]:
        """Zeros that take no memory: only their number counts, as `scores` adds up the pairs."""
        return self.similarity.new_zeros(()).expand(self.config.items, self.config.items)

    def scores(self, hidden: Float[Tensor, "B N"], items: Float[Tensor, "N N"]) -> Float[Tensor, "B N"]:
        """Sums of similarities by sparse matrices: N × N numbers would not fit into memory. items: not read."""
        scores = csr_array(hidden.cpu().numpy()) @ self._similarity_by_item()
        return torch.from_numpy(scores.toarray()).to(hidden.device)

    def _similarity_by_item(self) -> csr_array:
        """Row i − 1: the similarities of item i, of a history, to the candidates. Shape (N, N)."""
        seen, candidates = self.pairs.cpu().numpy()  # sorted by `seen`
        starts = np.searchsorted(seen, np.arange(self.config.items + 1, dtype=seen.dtype))
        shape = (self.config.items, self.config.items)
        return csr_array((self.similarity.cpu().numpy(), candidates, starts), shape=shape)


def build(material: Material) -> ItemKnn:
    """ItemKNN with the decay of the best validation metric."""
    m = material
    pairs, similarity = similarities(m.values, m.offsets, m.items)

    def with_decay(decay: float) -> ItemKnn:
        model = ItemKnn(ItemKnnConfig(items=m.items, pairs=len(similarity), decay=decay))
        model.load_state_dict({"pairs": pairs, "similarity": similarity})
        return model

    return max(map(with_decay, DECAYS), key=m.validate)


def restore(config: dict[str, Any]) -> ItemKnn:
    """The system with this configuration, for the pairs and similarities that were saved."""
    return ItemKnn(ItemKnnConfig(**config))
