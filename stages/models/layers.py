"""Transformer layers shared by the sequence models: post-norm, causal, right-padded (paper eqs. 8–9 and 11–14)."""

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stages.models.scores import on_plain_cpu
from stages.parallel import distributed


def dropout(x: Float[Tensor, "*any"], rate: float, *, training: bool, table: bool = False) -> Float[Tensor, "*any"]:
    """Inverted dropout. `table`: the rows of `x` are not those of the batch; on CPUs all ranks drop the same elements.

    On a CPU one random byte is drawn per element, so the rate is rounded to 1/256 and at most 255/256. torch draws 32
    bits, which takes a quarter of a training step.
    """
    if not training or x.device.type != "cpu":
        return F.dropout(x, rate, training)
    threshold = min(round(rate * 256), 255)
    shape, own = (x.shape, slice(None)) if table else distributed.random_shape(x.shape)
    count = math.prod(shape)
    words = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None)  # eight bytes each
    mask = words.view(torch.uint8)[:count].view(shape)[own] >= threshold
    return x * mask.to(x.dtype).mul_(256 / (256 - threshold))  # the share that is kept, after rounding


def attend(
    q: Float[Tensor, "B heads Q d"],
    k: Float[Tensor, "B heads L d"],
    v: Float[Tensor, "B heads L d"],
    visible: Bool[Tensor, "B L"] | None,
    rate: float,
) -> Float[Tensor, "B heads Q d"]:
    """Softmax(q kᵀ / √d) v with dropout on the softmax. visible: what every query may attend to; None: causal.

    torch has no fused kernel for attention with dropout on a CPU, and its unfused one is slower than this.
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

    Causal unless `visible` says which positions every query may attend to. A causal layer needs no padding mask:
    padding is at the right, and no real position attends to what is on its right.
    """

    def __init__(self, *, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim) for _ in range(4))
        self.norm = nn.LayerNorm(dim, eps=1e-12)

    def forward(
        self,
        query: Float[Tensor, "B Q D"],
        memory: Float[Tensor, "B L D"],
        visible: Bool[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B Q D"]:
        if visible is not None and query.shape[1] == 1:
            return self.single(query[:, 0], memory, visible)[:, None]
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, L, D / heads)
            for layer, x in ((self.query, query), (self.key, memory), (self.value, memory))
        )
        mixed = attend(q, k, v, visible, self.dropout if self.training else 0.0)
        mixed = self.output(mixed.transpose(1, 2).flatten(2))
        return self.norm(query + dropout(mixed, self.dropout, training=self.training))

    def single(
        self, query: Float[Tensor, "B D"], memory: Float[Tensor, "B L D"], visible: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B D"]:
        """The same for one query per row, computed without keys and values; equal up to rounding.

        q · (K x + b) is (Kᵀ q) · x + q · b, and Σ a (V x + c) is V (Σ a x) + (Σ a) c: the projections are applied once
        per row, to the query and to the weighted sum, instead of to every position of the memory.
        """
        per_head = (self.heads, -1)
        key, value = (layer.weight.unflatten(0, per_head) for layer in (self.key, self.value))  # (heads, D / heads, D)
        key_bias, value_bias = (layer.bias.unflatten(0, per_head) for layer in (self.key, self.value))
        q = self.query(query).unflatten(-1, per_head) * (query.shape[-1] // self.heads) ** -0.5  # (B, heads, D / heads)
        projected = (q.transpose(0, 1) @ key).transpose(0, 1)  # (B, heads, D)
        scores = projected @ memory.transpose(1, 2) + (q * key_bias).sum(dim=-1, keepdim=True)
        weights = scores.masked_fill(~visible[:, None], float("-inf")).softmax(dim=-1)  # (B, heads, L)
        weights = dropout(weights, self.dropout, training=self.training)
        summed = ((weights @ memory).transpose(0, 1) @ value.transpose(1, 2)).transpose(0, 1)  # (B, heads, D / heads)
        mixed = (summed + weights.sum(dim=-1, keepdim=True) * value_bias).flatten(1)
        return self.norm(query + dropout(self.output(mixed), self.dropout, training=self.training))


class FeedForward(nn.Module):
    """Position-wise feed-forward network of inner width D, with residual and LayerNorm."""

    def __init__(self, *, dim: int, dropout: float) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "*any D"]) -> Float[Tensor, "*any D"]:
        y = self.outer(F.gelu(self.inner(x)))
        return self.norm(x + dropout(y, self.dropout, training=self.training))


class Block(nn.Module):
    """One layer: attention over `memory` (None: self-attention), then feed-forward. visible: see Attention."""

    def __init__(self, *, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(dim=dim, heads=heads, dropout=dropout)
        self.feed_forward = FeedForward(dim=dim, dropout=dropout)

    def forward(
        self,
        query: Float[Tensor, "B Q D"],
        memory: Float[Tensor, "B L D"] | None = None,
        visible: Bool[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B Q D"]:
        return self.feed_forward(self.attention(query, query if memory is None else memory, visible))


class TransformerEncoder(nn.Module):
    """A stack of self-attention blocks. visible: see Attention."""

    def __init__(self, *, layers: int, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim=dim, heads=heads, dropout=dropout) for _ in range(layers))

    def forward(self, x: Float[Tensor, "B L D"], visible: Bool[Tensor, "B L"] | None = None) -> Float[Tensor, "B L D"]:
        for block in self.blocks:
            x = block(x, visible=visible)
        return x

    def last(self, x: Float[Tensor, "B L D"], items: Int[Tensor, "B L"]) -> Float[Tensor, "B 1 D"]:
        """State of a causal stack after each row's last item; the top block computes no other. items: 0 = padding."""
        *lower, top = self.blocks
        for block in lower:
            x = block(x)
        return top(last_position(x, items)[:, None], x, items > 0)


class NormDropout(nn.Module):
    """LayerNorm then dropout, on the input of each stack."""

    def __init__(self, *, dim: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(dim, eps=1e-12), dropout

    def forward(self, x: Float[Tensor, "*any D"]) -> Float[Tensor, "*any D"]:
        return dropout(self.norm(x), self.dropout, training=self.training)


class Lora(nn.Module):
    """The weight W₀ + B A (eq. 20): A from a zero-mean normal, B zero, so that training starts at W₀."""

    def __init__(self, weight: Float[Tensor, "rows columns"], rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.a = nn.Parameter(torch.empty(rank, columns).normal_(std=0.02))
        self.b = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """weight: W₀."""
        return weight + self.b @ self.a


class _LowRankLinear(torch.autograd.Function):
    """x (W₀ + B A)ᵀ + bias, where only x, A and B get gradients.

    Those of A and B are products of rank r. By autograd they come from the gradient of the whole weight, a third of the
    backward pass of such a layer.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
        """x: (…, columns). weight: (rows, columns), W₀ + B A. a: (r, columns). b: (rows, r)."""
        ctx.save_for_backward(x, weight, a, b)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b = ctx.saved_tensors
        rows, inputs = gradient.flatten(0, -2), x.flatten(0, -2)
        of_a, of_b = (rows @ b).T @ inputs, rows.T @ (inputs @ a.T)
        return gradient @ weight if ctx.needs_input_grad[0] else None, None, None, of_a, of_b


class LoraLinear(nn.Linear):
    """A Linear with a low-rank update of its weight, which is a parametrization."""

    parametrizations: nn.ModuleDict  # of parametrize

    def forward(self, x: Float[Tensor, "*any columns"]) -> Float[Tensor, "*any rows"]:
        update = cast(parametrize.ParametrizationList, self.parametrizations["weight"])
        frozen = not (update.original.requires_grad or self.bias.requires_grad)
        if not (frozen and on_plain_cpu(x)):
            return super().forward(x)
        lora = cast(Lora, update[0])
        result: Tensor = _LowRankLinear.apply(x, self.weight.detach(), self.bias, lora.a, lora.b)
        return result


def add_lora(module: nn.Module, rank: int) -> None:
    """Give every Linear inside `module` a low-rank update of its weight."""
    for layer in [layer for layer in module.modules() if isinstance(layer, nn.Linear)]:
        layer.__class__ = LoraLinear  # in place, so that names in saved models stay
        parametrize.register_parametrization(layer, "weight", Lora(layer.weight, rank))


def initialise(module: nn.Module) -> None:
    """Weights of Linear and Embedding from N(0, 0.02²), biases 0, as in BERT and RecBole."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, std=0.02)
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


def last_position(hidden: Shaped[Tensor, "B L *rest"], items: Int[Tensor, "B L"]) -> Shaped[Tensor, " B *rest"]:
    """The element of `hidden` at each row's last item. items: 0 = padding, at the right."""
    last = (items > 0).sum(dim=1) - 1
    return hidden[torch.arange(items.shape[0], device=items.device), last]
