"""GRU4Rec (Hidasi et al. 2016; Tan et al. 2016): a gated recurrent network over item embeddings, full cross-entropy."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.models.baselines.material import Material
from stages.models.layers import dropout, last_position
from stages.models.recommender import Recommender
from stages.models.softmax import next_item_loss
from stages.parallel.static_shapes import select_targets


@dataclass(frozen=True, kw_only=True)
class Gru4RecConfig:
    items: int  # N
    dim: int  # D
    dropout: float
    layers: int = 1


class Gru4Rec(Recommender):
    """Embedding, dropout, GRU, linear; scored against the same embeddings. Item 0 is padding, at the right."""

    def __init__(self, config: Gru4RecConfig) -> None:
        super().__init__()
        self.config = config
        self.item_embedding = nn.Embedding(config.items + 1, config.dim)  # row 0 is padding
        self.gru = nn.GRU(config.dim, config.dim, config.layers, bias=False, batch_first=True)
        self.output = nn.Linear(config.dim, config.dim)
        nn.init.xavier_normal_(self.item_embedding.weight)
        nn.init.xavier_uniform_(self.gru.get_parameter("weight_ih_l0"))
        nn.init.xavier_uniform_(self.gru.get_parameter("weight_hh_l0"))

    def hidden(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """State after each item."""
        embedded = dropout(self.item_embedding(items), self.config.dropout, training=self.training)
        return self.output(self.gru(embedded)[0])

    def candidates(self, items: Int[Tensor, " n"] | None) -> Float[Tensor, "n D"]:
        """Item vectors that the loss scores states against; None: of all items, row i − 1 is item i."""
        return self.item_embedding.weight[1:] if items is None else self.item_embedding(items)

    def item_matrix(self) -> Float[Tensor, "N D"]:
        """What states are ranked by: row i − 1 is item i."""
        return self.candidates(None)

    def loss(self, items: Int[Tensor, "B L"], targets: Int[Tensor, "B L"]) -> dict[str, Tensor]:
        """Cross-entropy at every target position. targets: 0 = none."""
        states, answers = select_targets(self.hidden(items), targets)
        return {"loss": next_item_loss(states, answers, self.candidates, self.sampler)}

    @torch.no_grad()
    def last_hidden(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """State after each row's last item."""
        return last_position(self.hidden(items), items)


def build(material: Material) -> Gru4Rec:
    """An untrained GRU4Rec."""
    m = material
    return Gru4Rec(Gru4RecConfig(items=m.items, dim=m.dim, dropout=m.dropout))


def restore(config: dict[str, Any]) -> Gru4Rec:
    """A system of this configuration, to load saved weights into."""
    return Gru4Rec(Gru4RecConfig(**config))
