"""BERT4Rec (Sun et al. 2019): a bidirectional encoder that fills in masked items."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from stages.models.baselines.material import Material
from stages.models.layers import NormDropout, TransformerEncoder, initialise, last_position
from stages.models.recommender import Recommender
from stages.models.softmax import next_item_loss
from stages.parallel import distributed
from stages.parallel.static_shapes import select_targets


@dataclass(frozen=True, kw_only=True)
class Bert4RecConfig:
    items: int  # N
    dim: int  # D
    layers: int
    heads: int
    max_length: int
    dropout: float
    mask_share: float = 0.2  # of the items of a row
    last_share: float = 0.5  # of the rows have only their last item masked, as at test time


class Bert4Rec(Recommender):
    """Item and position embeddings, full self-attention, and a head for masked positions. Item 0 is padding."""

    def __init__(self, config: Bert4RecConfig) -> None:
        super().__init__()
        self.config = c = config
        self.mask = c.items + 1
        self.item_embedding = nn.Embedding(c.items + 2, c.dim)  # row 0 is padding, the last one the mask
        self.position_embedding = nn.Embedding(c.max_length + 1, c.dim)
        self.input = NormDropout(dim=c.dim, dropout=c.dropout)
        self.encoder = TransformerEncoder(layers=c.layers, dim=c.dim, heads=c.heads, dropout=c.dropout)
        self.head = nn.Sequential(nn.Linear(c.dim, c.dim), nn.GELU(), nn.LayerNorm(c.dim, eps=1e-12))
        self.item_bias = nn.Parameter(torch.zeros(c.items))
        initialise(self)

    def hidden(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B L d"]:
        """Head output at every position, and a 1 that is multiplied by the item's bias (d = D + 1)."""
        x = self.item_embedding(items) + self.position_embedding.weight[: items.shape[1]]
        states = self.head(self.encoder(self.input(x), visible=items > 0))
        return torch.cat([states, torch.ones_like(states[..., :1])], dim=-1)

    def candidates(self, items: Int[Tensor, " n"] | None) -> Float[Tensor, "n d"]:
        """Embedding and bias of items, which the loss scores states against; None: of all, row i − 1 is item i."""
        if items is None:
            return torch.cat([self.item_embedding.weight[1:-1], self.item_bias[:, None]], dim=1)
        return torch.cat([self.item_embedding(items), self.item_bias[items - 1, None]], dim=1)

    def item_matrix(self) -> Float[Tensor, "N d"]:
        """What states are ranked by: row i − 1 is item i."""
        return self.candidates(None)

    def choose_masked(self, items: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """Which items to mask: a share of each row, at least one; in some rows only the last item."""
        real = items > 0
        (rows, length), own = distributed.random_shape(items.shape)
        masked = real & (torch.rand(rows, length, device=items.device)[own] < self.config.mask_share)
        last = torch.arange(items.shape[1], device=items.device) == real.sum(dim=1, keepdim=True) - 1
        only_last = torch.rand(rows, 1, device=items.device)[own] < self.config.last_share
        return torch.where(only_last | ~masked.any(dim=1, keepdim=True), last, masked)

    def loss(self, items: Int[Tensor, "B L"], targets: Int[Tensor, "B L"]) -> dict[str, Tensor]:
        """Cross-entropy at the masked positions of whole histories: a row's items and its last target."""
        whole = F.pad(items, (0, 1))
        ends = (items > 0).sum(dim=1)
        whole[torch.arange(len(items), device=items.device), ends] = last_position(targets, items)
        masked = self.choose_masked(whole)
        states, answers = select_targets(
            self.hidden(whole.masked_fill(masked, self.mask)), whole.masked_fill(~masked, 0)
        )
        return {"loss": next_item_loss(states, answers, self.candidates, self.sampler)}

    @torch.no_grad()
    def last_hidden(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B d"]:
        """State at a mask that is appended to each row."""
        appended = F.pad(items, (0, 1))
        appended[torch.arange(len(items), device=items.device), (items > 0).sum(dim=1)] = self.mask
        return last_position(self.hidden(appended), appended)


def build(material: Material) -> Bert4Rec:
    """An untrained BERT4Rec."""
    m = material
    return Bert4Rec(
        Bert4RecConfig(
            items=m.items, dim=m.dim, layers=m.layers, heads=m.heads, dropout=m.dropout, max_length=m.max_length
        )
    )


def restore(config: dict[str, Any]) -> Bert4Rec:
    """A system of this configuration, to load saved weights into."""
    return Bert4Rec(Bert4RecConfig(**config))
