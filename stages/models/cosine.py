"""SASRec's encoder over item vectors of any origin, scored by cosine: what UniSRec and VQ-Rec have in common."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.models.layers import Encoder, NormDropout


class CosineConfig(Protocol):
    """What is needed of a model's configuration."""

    items: int  # N
    dim: int  # D
    layers: int
    heads: int
    max_length: int
    dropout: float
    tau: float


class CosineSequenceModel(nn.Module):
    """Positions, encoder, loss; a subclass says what an item's vector is."""

    def __init__(self, config: CosineConfig) -> None:
        super().__init__()
        self.config = config
        self.position_embedding = nn.Embedding(config.max_length, config.dim)
        self.input = NormDropout(config.dim, config.dropout)
        self.encoder = Encoder(config.layers, config.dim, config.heads, config.dropout)

    def item_vectors(self, items: Tensor) -> Tensor:
        """Vectors of distinct items, 0 = padding. items: (n,) → (n, D)."""
        raise NotImplementedError

    def embedded(self, items: Tensor) -> Tensor:
        """What the encoder reads. items: (B, L) → (B, L, D)."""
        distinct, where = items.unique(return_inverse=True)
        return self.input(
            F.embedding(where, self.item_vectors(distinct)) + self.position_embedding.weight[: items.shape[1]]
        )

    def hidden(self, items: Tensor) -> Tensor:
        """Unit state after each item. items: (B, L), 0 = padding at the right → (B, L, D)."""
        return F.normalize(self.encoder(self.embedded(items)), dim=-1)

    def item_matrix(self) -> Tensor:
        """Unit vectors: row i − 1 is item i. → (N, D)."""
        everything = torch.arange(1, self.config.items + 1, device=self.position_embedding.weight.device)
        return F.normalize(self.item_vectors(everything), dim=-1)

    def loss(self, items: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross-entropy over all items of cosine / τ. items, targets: (B, L), 0 = no target."""
        wanted = targets > 0
        scores = self.hidden(items)[wanted] @ self.item_matrix().T / self.config.tau
        return {"loss": F.cross_entropy(scores, targets[wanted] - 1)}

    @torch.no_grad()
    def last_hidden(self, items: Tensor) -> Tensor:
        """State after each row's last item. items: (B, L) → (B, D)."""
        return F.normalize(self.encoder.last(self.embedded(items), items)[:, 0], dim=-1)
