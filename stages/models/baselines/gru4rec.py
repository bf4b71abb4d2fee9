"""GRU4Rec (Hidasi et al. 2016; Tan et al. 2016): a gated recurrent network over item embeddings, full cross-entropy."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stages.models.baselines.material import Material
from stages.models.layers import dropout, last_position
from stages.models.softmax import Sampler, next_item_loss
from stages.parallel.static_shapes import select_targets


@dataclass(frozen=True, kw_only=True)
class Gru4RecConfig:
    items: int  # N
    dim: int  # D
    dropout: float = 0.3
    layers: int = 1


class Gru4Rec(nn.Module):
    """Embedding, dropout, GRU, linear; scored against the same embeddings."""

    def __init__(self, config: Gru4RecConfig) -> None:
        super().__init__()
        self.config = config
        self.item_embedding = nn.Embedding(config.items + 1, config.dim)  # row 0 is padding
        self.gru = nn.GRU(config.dim, config.dim, config.layers, bias=False, batch_first=True)
        self.output = nn.Linear(config.dim, config.dim)
        self.sampler: Sampler | None = None  # of negatives; None: all items are
        nn.init.xavier_normal_(self.item_embedding.weight)
        nn.init.xavier_uniform_(self.gru.weight_ih_l0)
        nn.init.xavier_uniform_(self.gru.weight_hh_l0)

    def hidden(self, items: Tensor) -> Tensor:
        """State after each item. items: (B, L), 0 = padding at the right → (B, L, D)."""
        embedded = dropout(self.item_embedding(items), self.config.dropout, self.training)
        return self.output(self.gru(embedded)[0])

    def candidates(self, items: Tensor | None) -> Tensor:
        """What states are scored against, of some items or all. (n,) → (n, D); None → (N, D), row i − 1 is item i."""
        return self.item_embedding.weight[1:] if items is None else self.item_embedding(items)

    def item_matrix(self) -> Tensor:
        """What states are ranked by: row i − 1 is item i. → (N, D)."""
        return self.candidates(None)

    def loss(self, items: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross-entropy at every target position. items, targets: (B, L), 0 = no target."""
        states, answers = select_targets(self.hidden(items), targets)
        return {"loss": next_item_loss(states, answers, self.candidates, self.sampler)}

    @torch.no_grad()
    def last_hidden(self, items: Tensor) -> Tensor:
        """State after each row's last item. items: (B, L) → (B, D)."""
        return last_position(self.hidden(items), items)


def build(material: Material) -> Gru4Rec:
    """An untrained GRU4Rec."""
    return Gru4Rec(Gru4RecConfig(items=material.items, dim=material.dim))
