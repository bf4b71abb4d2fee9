"""Attention over vectors that occur in many rows, in MISSRec: equal to layers.Attention up to rounding."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stages.models.layers import Attention, attend, dropout


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
