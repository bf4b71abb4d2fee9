"""SICSRec's content vectors: tables that start at the encoders' vectors, adapters, and their fusion (eqs. 6, 7, 10)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.parallel.static_shapes import unique_items


class Content(nn.Module):
    """A table of vectors and an adapter for each content modality (eqs. 6, 7)."""

    def __init__(self, *, items: int, dim: int, widths: dict[str, int]) -> None:
        """items: N. dim: D. widths: length of each modality's vectors."""
        super().__init__()
        self.tables = nn.ModuleDict({name: nn.Embedding(items + 1, w) for name, w in widths.items()})
        self.adapters = nn.ModuleDict()
        for name, w in widths.items():
            self.adapters[name] = nn.Sequential(nn.Linear(w, w // 2), nn.ReLU(), nn.Linear(w // 2, dim))

    def forward(self, items: Int[Tensor, "*any"]) -> dict[str, Float[Tensor, "*any D"]]:
        """Adapted vectors of each modality; each unique item is computed once."""
        unique, inverse, _ = unique_items(items)
        return {name: F.embedding(inverse, self.adapters[name](table(unique))) for name, table in self.tables.items()}


def fuse_modalities(adapted: dict[str, Float[Tensor, "*any D"]]) -> Float[Tensor, "*any D"]:
    """The unit vector of the sum of an item's adapted vectors (eq. 10)."""
    return F.normalize(torch.stack(list(adapted.values())).sum(dim=0), dim=-1)
