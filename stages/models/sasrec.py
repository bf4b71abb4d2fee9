"""SASRec (Kang & McAuley 2018), the ID-modality sequence encoder of section 3.4.2, trained with full cross-entropy."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.models.layers import NormDropout, TransformerEncoder, initialise
from stages.models.recommender import Recommender
from stages.models.softmax import next_item_loss
from stages.parallel.static_shapes import select_targets


@dataclass(frozen=True, kw_only=True)
class SasrecConfig:
    items: int  # N
    dim: int  # D
    layers: int
    heads: int
    dropout: float
    max_length: int


class Sasrec(Recommender):
    """Item and position embeddings, then causal self-attention. Item 0 is padding, at the right."""

    def __init__(self, config: SasrecConfig) -> None:
        super().__init__()
        self.config = c = config
        self.item_embedding = nn.Embedding(c.items + 1, c.dim)  # row 0 is padding
        self.position_embedding = nn.Embedding(c.max_length, c.dim)
        self.input = NormDropout(dim=c.dim, dropout=c.dropout)
        self.encoder = TransformerEncoder(layers=c.layers, dim=c.dim, heads=c.heads, dropout=c.dropout)
        initialise(self)

    def embedded(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """The encoder's input (eq. 5)."""
        return self.input(self.item_embedding(items) + self.position_embedding.weight[: items.shape[1]])

    def hidden(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """State after each item (eqs. 8, 9)."""
        return self.encoder(self.embedded(items))

    def candidates(self, items: Int[Tensor, " n"] | None) -> Float[Tensor, "n D"]:
        """Item vectors that the loss scores states against; None: of all items, row i − 1 is item i."""
        return self.item_embedding.weight[1:] if items is None else self.item_embedding(items)

    def item_matrix(self) -> Float[Tensor, "N D"]:
        """What states are ranked by: row i − 1 is item i."""
        return self.candidates(None)

    def loss(self, items: Int[Tensor, "B L"], targets: Int[Tensor, "B L"]) -> dict[str, Tensor]:
        """Cross-entropy at every target position (eq. 17). targets: 0 = none."""
        states, answers = select_targets(self.hidden(items), targets)
        return {"loss": next_item_loss(states, answers, self.candidates, self.sampler, self.smoothing)}

    @torch.no_grad()
    def last_hidden(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """State after each row's last item."""
        return self.encoder.last(self.embedded(items), items)[:, 0]
