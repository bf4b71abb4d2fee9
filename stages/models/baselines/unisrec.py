"""UniSRec (Hou et al. 2022), trained from scratch on one dataset: text through a mixture of whitening experts."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.models.baselines.cosine import CosineConfig, CosineSequenceModel
from stages.models.baselines.material import Material
from stages.models.layers import dropout, initialise


@dataclass(frozen=True, kw_only=True)
class UniSRecConfig(CosineConfig):
    width: int  # of the text vectors
    use_id: bool  # T + ID, or T alone
    adaptor_dropout: float = 0.2
    experts: int = 8  # G


class WhiteningMixture(nn.Module):
    """The MoE adaptor: Σ_g gate_g(x) · (x − b_g) W_g, with Gaussian noise on the gates in training."""

    def __init__(self, *, width: int, dim: int, experts: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.shift = nn.Parameter(torch.zeros(experts, width))  # b
        self.whiten = nn.Parameter(torch.empty(experts, width, dim).normal_(std=0.02))  # W
        self.gate = nn.Parameter(torch.zeros(width, experts))
        self.noise = nn.Parameter(torch.zeros(width, experts))

    def gates(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n G"]:
        """Weights of the experts, which sum to one."""
        logits = x @ self.gate
        if self.training:
            spread = F.softplus(x @ self.noise) + 0.01
            logits = logits + torch.randn_like(logits) * spread
        return logits.softmax(dim=-1)

    def forward(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n D"]:
        dropped = dropout(x, self.rate, training=self.training, table=True)
        gates = self.gates(x)
        experts = torch.stack([dropped @ weight for weight in self.whiten], dim=1)  # (n, G, D)
        shifts = torch.einsum("gw,gwd->gd", self.shift, self.whiten)  # (x − b) W = x W − b W
        return (gates[..., None] * experts).sum(dim=1) - gates @ shifts


class UniSRec(CosineSequenceModel):
    """SASRec's encoder over adapted text (and ID) vectors, scored by cosine against the same vectors."""

    config: UniSRecConfig
    text: Tensor

    def __init__(self, config: UniSRecConfig, text: Float[Tensor, "N width"]) -> None:
        """text: the items' vectors, which are not trained."""
        super().__init__(config)
        self.register_buffer("text", F.pad(text, (0, 0, 1, 0)))  # row 0 is padding
        self.adaptor = WhiteningMixture(
            width=config.width, dim=config.dim, experts=config.experts, rate=config.adaptor_dropout
        )
        if config.use_id:
            self.item_embedding = nn.Embedding(config.items + 1, config.dim)
        initialise(self)

    def item_vectors(self, items: Int[Tensor, " n"]) -> Float[Tensor, "n D"]:
        """Adapted text, plus the ID embedding with `use_id`."""
        adapted = self.adaptor(self.text[items])
        return adapted + self.item_embedding(items) if self.config.use_id else adapted


def build(material: Material, *, use_id: bool) -> UniSRec:
    """An untrained UniSRec over text vectors, with or without IDs."""
    m = material
    config = UniSRecConfig(
        items=m.items, dim=m.dim, layers=m.layers, heads=m.heads, dropout=m.dropout, max_length=m.max_length,
        width=m.widths["text"], use_id=use_id,
    )  # fmt: skip
    return UniSRec(config, m.tensors["text"])


def restore(config: dict[str, Any]) -> UniSRec:
    """A system of this configuration, to load saved weights and text vectors into."""
    c = UniSRecConfig(**config)
    return UniSRec(c, torch.zeros(c.items, c.width))
