"""SASRec's encoder over item vectors of any origin, scored by cosine: what UniSRec and VQ-Rec have in common."""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.models.layers import NormDropout, TransformerEncoder
from stages.models.softmax import Sampler, next_item_loss
from stages.parallel import distributed
from stages.parallel.static_shapes import select_targets, unique_items


@runtime_checkable
class CosineConfig(Protocol):
    """What is needed of a model's configuration."""

    items: int  # N
    dim: int  # D
    layers: int
    heads: int
    max_length: int
    dropout: float
    tau: float


class CosineSequenceModel(nn.Module, ABC):
    """Positions, encoder, loss; a subclass says what an item's vector is."""

    def __init__(self, config: CosineConfig) -> None:
        super().__init__()
        self.config = config
        self.position_embedding = nn.Embedding(config.max_length, config.dim)
        self.input = NormDropout(config.dim, config.dropout)
        self.encoder = TransformerEncoder(config.layers, config.dim, config.heads, config.dropout)
        self.sampler: Sampler | None = None  # of negatives; None: all items are

    @abstractmethod
    def item_vectors(self, items: Tensor) -> Tensor:
        """Vectors of distinct items, 0 = padding. items: (n,) → (n, D)."""

    def embedded(self, items: Tensor) -> Tensor:
        """What the encoder reads. items: (B, L) → (B, L, D)."""
        # in training those of all processes, which then draw the same noise for an item
        distinct, where, _ = distributed.unique_across_ranks(items) if self.training else unique_items(items)
        return self.input(
            F.embedding(where, self.item_vectors(distinct)) + self.position_embedding.weight[: items.shape[1]]
        )

    def hidden(self, items: Tensor) -> Tensor:
        """Unit state after each item. items: (B, L), 0 = padding at the right → (B, L, D)."""
        return F.normalize(self.encoder(self.embedded(items)), dim=-1)

    def candidates(self, items: Tensor | None) -> Tensor:
        """Unit vectors of some items or of all. (n,) → (n, D); None → (N, D), row i − 1 is item i."""
        if items is None:
            items = torch.arange(1, self.config.items + 1, device=self.position_embedding.weight.device)
        return F.normalize(self.item_vectors(items), dim=-1)

    def item_matrix(self) -> Tensor:
        """What states are ranked by. → (N, D)."""
        return self.candidates(None)

    def loss(self, items: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of cosine / τ at every target position. items, targets: (B, L), 0 = no target."""
        states, answers = select_targets(self.hidden(items), targets)
        return {"loss": next_item_loss(states / self.config.tau, answers, self.candidates, self.sampler)}

    @torch.no_grad()
    def last_hidden(self, items: Tensor) -> Tensor:
        """State after each row's last item. items: (B, L) → (B, D)."""
        return F.normalize(self.encoder.last(self.embedded(items), items)[:, 0], dim=-1)
