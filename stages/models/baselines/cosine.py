"""SASRec's encoder over given item vectors, scored by cosine: what UniSRec and VQ-Rec have in common."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.models.layers import NormDropout, TransformerEncoder
from stages.models.recommender import Recommender
from stages.models.softmax import next_item_loss
from stages.parallel import distributed
from stages.parallel.static_shapes import select_targets, unique_items


@dataclass(frozen=True, kw_only=True)
class CosineConfig:
    items: int  # N
    dim: int  # D
    layers: int
    heads: int
    max_length: int
    dropout: float
    tau: float = 0.07


class CosineSequenceModel(Recommender):
    """Positions, encoder, loss; a subclass computes the item vectors. Item 0 is padding, at the right."""

    def __init__(self, config: CosineConfig) -> None:
        super().__init__()
        self.config = c = config
        self.position_embedding = nn.Embedding(c.max_length, c.dim)
        self.input = NormDropout(dim=c.dim, dropout=c.dropout)
        self.encoder = TransformerEncoder(layers=c.layers, dim=c.dim, heads=c.heads, dropout=c.dropout)

    @abstractmethod
    def item_vectors(self, items: Int[Tensor, " n"]) -> Float[Tensor, "n D"]:
        """Vectors of unique items."""

    def embedded(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """The encoder's input."""
        # in training the unique items of all ranks, so that every rank draws the same noise for an item
        unique, inverse, _ = distributed.unique_across_ranks(items) if self.training else unique_items(items)
        vectors = F.embedding(inverse, self.item_vectors(unique))
        return self.input(vectors + self.position_embedding.weight[: items.shape[1]])

    def hidden(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """Unit state after each item."""
        return F.normalize(self.encoder(self.embedded(items)), dim=-1)

    def candidates(self, items: Int[Tensor, " n"] | None) -> Float[Tensor, "n D"]:
        """Unit item vectors that the loss scores states against; None: of all items, row i − 1 is item i."""
        if items is None:
            items = torch.arange(1, self.config.items + 1, device=self.position_embedding.weight.device)
        return F.normalize(self.item_vectors(items), dim=-1)

    def item_matrix(self) -> Float[Tensor, "N D"]:
        """What states are ranked by: row i − 1 is item i."""
        return self.candidates(None)

    def loss(self, items: Int[Tensor, "B L"], targets: Int[Tensor, "B L"]) -> dict[str, Tensor]:
        """Cross-entropy of cosine / τ at every target position. targets: 0 = none."""
        states, answers = select_targets(self.hidden(items), targets)
        return {"loss": next_item_loss(states / self.config.tau, answers, self.candidates, self.sampler)}

    @torch.no_grad()
    def last_hidden(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """State after each row's last item."""
        return F.normalize(self.encoder.last(self.embedded(items), items)[:, 0], dim=-1)
