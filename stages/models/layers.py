"""Transformer layers shared by the sequence models: post-norm, causal, right-padded (paper eqs. 8–9 and 11–14)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stages.parallel import distributed


def dropout(x: Tensor, rate: float, training: bool, table: bool = False) -> Tensor:
    """Inverted dropout of a batch's rows, or of a `table` that all rows share; the rate is rounded to 1/256.

    On a CPU torch draws 32 bits an element and that takes a quarter of a training step: here it is one byte.
    """
    if not training or x.device.type != "cpu":
        return F.dropout(x, rate, training)
    shape, own = (x.shape, slice(None)) if table else distributed.random_shape(x.shape)
    numbers = math.prod(shape)
    words = torch.empty(-(-numbers // 8), dtype=torch.int64).random_(-(2**63), None)
    mask = words.view(torch.uint8)[:numbers].view(shape)[own] >= round(rate * 256)
    return x * mask.to(x.dtype).mul_(1 / (1 - rate))


def attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, rate: float) -> Tensor:
    """Softmax(q kᵀ / √d) v with dropout on the softmax. q: (B, heads, Q, d), k, v: (B, heads, L, d) → (B, heads, Q, d).

    visible: (B, L) bool; None: causal. With dropout on a CPU torch has no fused kernel, and its own steps are slower
    than these.
    """
    mask = None if visible is None else visible[:, None, None, :]
    if not rate or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, mask, dropout_p=rate, is_causal=mask is None)
    if mask is None:
        mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
    scores = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).masked_fill(~mask, float("-inf"))
    return dropout(scores.softmax(dim=-1), rate, training=True) @ v


class Attention(nn.Module):
    """Multi-head attention of `query` over `memory`, with residual and LayerNorm.

    Causal unless `visible` says which positions every query may look at. A causal layer needs no mask of the padding:
    it stands at the right, where no real position may look.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim) for _ in range(4))
        self.norm = nn.LayerNorm(dim, eps=1e-12)

    def forward(self, query: Tensor, memory: Tensor, visible: Tensor | None = None) -> Tensor:
        """query: (B, Q, D), memory: (B, L, D), visible: (B, L) bool → (B, Q, D)."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, L, D / heads)
            for layer, x in ((self.query, query), (self.key, memory), (self.value, memory))
        )
        mixed = attend(q, k, v, visible, self.dropout if self.training else 0.0)
        mixed = self.output(mixed.transpose(1, 2).flatten(2))
        return self.norm(query + dropout(mixed, self.dropout, self.training))


class FeedForward(nn.Module):
    """Position-wise feed-forward network of inner width D, with residual and LayerNorm. (B, L, D) → (B, L, D)."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        y = self.outer(F.gelu(self.inner(x)))
        return self.norm(x + dropout(y, self.dropout, self.training))


class Block(nn.Module):
    """One layer: attention over `memory` (self-attention when it is the query itself), then feed-forward."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, dropout)
        self.feed_forward = FeedForward(dim, dropout)

    def forward(self, query: Tensor, memory: Tensor | None = None, visible: Tensor | None = None) -> Tensor:
        """query: (B, Q, D), memory: (B, L, D), visible: (B, L) bool, see Attention → (B, Q, D)."""
        return self.feed_forward(self.attention(query, query if memory is None else memory, visible))


class TransformerEncoder(nn.Module):
    """A stack of self-attention blocks."""

    def __init__(self, layers: int, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, heads, dropout) for _ in range(layers))

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """x: (B, L, D), visible: (B, L) bool, see Attention → (B, L, D)."""
        for block in self.blocks:
            x = block(x, visible=visible)
        return x

    def last(self, x: Tensor, items: Tensor) -> Tensor:
        """Only the state after each row's last item, of a causal stack: its last block computes no other.

        x: (B, L, D), items: (B, L), 0 = padding at the right → (B, 1, D).
        """
        *lower, top = self.blocks
        for block in lower:
            x = block(x)
        return top(last_position(x, items)[:, None], x, items > 0)


class NormDropout(nn.Module):
    """LayerNorm then dropout, as before each stack. (…, D) → (…, D)."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(dim, eps=1e-12), dropout

    def forward(self, x: Tensor) -> Tensor:
        return dropout(self.norm(x), self.dropout, self.training)


class Lora(nn.Module):
    """The weight W₀ + B A (eq. 20): A from a zero-mean normal, B zero, so that training starts at W₀."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.a = nn.Parameter(torch.empty(rank, columns).normal_(std=0.02))
        self.b = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """weight: W₀ (rows, columns) → W₀ + B A."""
        return weight + self.b @ self.a


def add_lora(module: nn.Module, rank: int) -> None:
    """Give every Linear inside `module` a low-rank update of its weight."""
    for layer in [layer for layer in module.modules() if isinstance(layer, nn.Linear)]:
        parametrize.register_parametrization(layer, "weight", Lora(layer.weight, rank))


def initialise(module: nn.Module) -> None:
    """Weights of Linear and Embedding from N(0, 0.02), biases 0: BERT's way and RecBole's."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, std=0.02)
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


def last_position(hidden: Tensor, items: Tensor) -> Tensor:
    """What stands at each row's last real item. hidden: (B, L, …), items: (B, L), 0 = padding at the right → (B, …)."""
    last = (items > 0).sum(dim=1) - 1
    return hidden[torch.arange(len(items), device=items.device), last]
