"""Attention with fewer projections, for two special cases of MISSRec: equal to layers.Attention up to rounding."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stages.models.layers import Attention, attend, dropout


class SingleQueryAttention(Attention):
    """Attention of one query per row, which computes no keys and no values.

    q · (K x + b) is (Kᵀ q) · x + q · b, and Σ a (V x + c) is V (Σ a x) + (Σ a) c: the projections are applied once per
    row, to the query and to the weighted sum, instead of to every position of the memory.
    """

    def forward(  # type: ignore[override]  # one query per row, and `visible` is required
        self, query: Float[Tensor, "B D"], memory: Float[Tensor, "B L D"], visible: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B D"]:
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


class TableAttention(Attention):
    """Self-attention over `table[indices]`: a vector that occurs in many rows is projected once."""

    def forward(  # type: ignore[override]  # rows of a table and indices take the place of query and memory
        self, table: Float[Tensor, "n D"], indices: Int[Tensor, "B L"], visible: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B L D"]:
        q, k, v = (
            F.embedding(indices, layer(table)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = attend(q, k, v, visible, self.dropout if self.training else 0.0)
        mixed = self.output(mixed.transpose(1, 2).flatten(2))
        return self.norm(F.embedding(indices, table) + dropout(mixed, self.dropout, training=self.training))
