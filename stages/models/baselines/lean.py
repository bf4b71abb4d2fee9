"""Attention that projects less, where the model lets it: the results of layers.Attention, but for rounding."""

import torch.nn.functional as F
from torch import Tensor

from stages.models.layers import Attention, attend, dropout


class SingleQueryAttention(Attention):
    """Attention of one query a row, which forms no keys and no values.

    q · (K x + b) is (Kᵀ q) · x + q · b, and Σ a (V x + c) is V (Σ a x) + (Σ a) c: each row projects its query and what
    it has read, instead of every position of its memory.
    """

    def forward(self, query: Tensor, memory: Tensor, visible: Tensor) -> Tensor:
        """query: (B, D), memory: (B, L, D), visible: (B, L) bool → (B, D)."""
        per_head = (self.heads, -1)
        key, value = (layer.weight.unflatten(0, per_head) for layer in (self.key, self.value))  # (heads, D / heads, D)
        key_bias, value_bias = (layer.bias.unflatten(0, per_head) for layer in (self.key, self.value))
        q = self.query(query).unflatten(-1, per_head) * (query.shape[-1] // self.heads) ** -0.5  # (B, heads, D / heads)
        asked = (q.transpose(0, 1) @ key).transpose(0, 1)  # (B, heads, D)
        scores = asked @ memory.transpose(1, 2) + (q * key_bias).sum(dim=-1, keepdim=True)
        weights = scores.masked_fill(~visible[:, None], float("-inf")).softmax(dim=-1)  # (B, heads, L)
        weights = dropout(weights, self.dropout, self.training)
        read = ((weights @ memory).transpose(0, 1) @ value.transpose(1, 2)).transpose(0, 1)  # (B, heads, D / heads)
        mixed = (read + weights.sum(dim=-1, keepdim=True) * value_bias).flatten(1)
        return self.norm(query + dropout(self.output(mixed), self.dropout, self.training))


class TableAttention(Attention):
    """Self-attention of vectors out of a table: what stands in many rows is projected once."""

    def forward(self, table: Tensor, places: Tensor, visible: Tensor) -> Tensor:
        """Of table[places]. table: (n, D), places: (B, L), visible: (B, L) bool → (B, L, D)."""
        q, k, v = (
            F.embedding(places, layer(table)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = attend(q, k, v, visible, self.dropout if self.training else 0.0)
        mixed = self.output(mixed.transpose(1, 2).flatten(2))
        return self.norm(F.embedding(places, table) + dropout(mixed, self.dropout, self.training))
