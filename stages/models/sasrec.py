"""SASRec (Kang & McAuley 2018), the ID-modality sequence encoder of section 3.4.2, trained with full cross-entropy."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stages.models.layers import NormDropout, TransformerEncoder, initialise
from stages.models.softmax import Sampler, next_item_loss
from stages.parallel.static_shapes import select_targets


@dataclass(frozen=True, kw_only=True)
class SasrecConfig:
    items: int  # N
    dim: int  # D
    layers: int
    heads: int
    dropout: float
    max_length: int


class Sasrec(nn.Module):
    """Item and position embeddings, then causal self-attention."""

    def __init__(self, config: SasrecConfig) -> None:
        super().__init__()
        self.config = config
        self.item_embedding = nn.Embedding(config.items + 1, config.dim)  # row 0 is padding
        self.position_embedding = nn.Embedding(config.max_length, config.dim)
        self.input = NormDropout(config.dim, config.dropout)
        self.encoder = TransformerEncoder(config.layers, config.dim, config.heads, config.dropout)
        self.sampler: Sampler | None = None  # of negatives; None: all items are
        initialise(self)

    def positions(self, items: Tensor) -> Tensor:
        """Position vectors for items (B, L) → (L, D)."""
        return self.position_embedding.weight[: items.shape[1]]

    def embedded(self, items: Tensor) -> Tensor:
        """What the encoder reads (eqs. 5, 8). items: (B, L) → (B, L, D)."""
        return self.input(self.item_embedding(items) + self.positions(items))

    def hidden(self, items: Tensor) -> Tensor:
        """State after each item (eq. 9). items: (B, L), 0 = padding at the right → (B, L, D)."""
        return self.encoder(self.embedded(items))

    def candidates(self, items: Tensor | None) -> Tensor:
        """What states are scored against, of some items or all. (n,) → (n, D); None → (N, D), row i − 1 is item i."""
        return self.item_embedding.weight[1:] if items is None else self.item_embedding(items)

    def item_matrix(self) -> Tensor:
        """What states are ranked by: row i − 1 is item i. → (N, D)."""
        return self.candidates(None)

    def loss(self, items: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross-entropy at every target position (eq. 17). items, targets: (B, L), 0 = no target."""
        states, answers = select_targets(self.hidden(items), targets)
        return {"loss": next_item_loss(states, answers, self.candidates, self.sampler)}

    @torch.no_grad()
    def last_hidden(self, items: Tensor) -> Tensor:
        """State after each row's last item. items: (B, L) → (B, D)."""
        return self.encoder.last(self.embedded(items), items)[:, 0]
