"""UniSRec (Hou et al. 2022), trained from scratch on one dataset: text through a mixture of whitening experts."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.models.baselines.cosine import CosineSequenceModel
from stages.models.baselines.material import Material
from stages.models.layers import dropout, initialise


@dataclass(frozen=True, kw_only=True)
class UniSRecConfig:
    items: int  # N
    dim: int  # D
    layers: int
    heads: int
    max_length: int
    width: int  # of the text vectors
    use_id: bool  # T + ID, or T alone
    dropout: float = 0.5
    adaptor_dropout: float = 0.2
    experts: int = 8  # G
    tau: float = 0.07


class WhiteningMixture(nn.Module):
    """The MoE adaptor: Σ_g gate_g(x) · (x − b_g) W_g, with Gaussian noise on the gates in training."""

    def __init__(self, width: int, dim: int, experts: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.shift = nn.Parameter(torch.zeros(experts, width))  # b
        self.whiten = nn.Parameter(torch.empty(experts, width, dim).normal_(std=0.02))  # W
        self.gate = nn.Parameter(torch.zeros(width, experts))
        self.noise = nn.Parameter(torch.zeros(width, experts))

    def gates(self, x: Tensor) -> Tensor:
        """Weights of the experts, which sum to one. x: (n, width) → (n, G)."""
        logits = x @ self.gate
        if self.training:
            spread = F.softplus(x @ self.noise) + 0.01
            logits = logits + torch.randn_like(logits) * spread
        return logits.softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, width) → (n, D)."""
        dropped = dropout(x, self.rate, self.training, table=True)
        gates = self.gates(x)
        experts = torch.stack([dropped @ weight for weight in self.whiten], dim=1)  # (n, G, D)
        shifts = torch.einsum("gw,gwd->gd", self.shift, self.whiten)  # (x − b) W = x W − b W
        return (gates[..., None] * experts).sum(dim=1) - gates @ shifts


class UniSRec(CosineSequenceModel):
    """SASRec's encoder over adapted text (and ID) vectors, scored by cosine against the same vectors."""

    config: UniSRecConfig

    def __init__(self, config: UniSRecConfig, text: Tensor) -> None:
        """text: (N, width), fixed."""
        super().__init__(config)
        self.register_buffer("text", F.pad(text, (0, 0, 1, 0)))  # row 0 is padding
        self.adaptor = WhiteningMixture(config.width, config.dim, config.experts, config.adaptor_dropout)
        if config.use_id:
            self.item_embedding = nn.Embedding(config.items + 1, config.dim)
        initialise(self)

    def item_vectors(self, items: Tensor) -> Tensor:
        """Adapted text, plus the ID embedding where IDs are used. items: (n,) → (n, D)."""
        adapted = self.adaptor(self.text[items])
        return adapted + self.item_embedding(items) if self.config.use_id else adapted


def build(material: Material, *, use_id: bool) -> UniSRec:
    """An untrained UniSRec over text vectors, with or without IDs."""
    m = material
    config = UniSRecConfig(
        items=m.items, dim=m.dim, layers=m.layers, heads=m.heads, max_length=m.max_length, width=m.widths["text"],
        use_id=use_id,
    )  # fmt: skip
    return UniSRec(config, m.tensors["text"])
