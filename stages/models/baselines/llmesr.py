"""LLM-ESR (Liu et al. 2024): a semantic and a collaborative view, cross-attention between them, self-distillation.

Each user's state is drawn to those of the users with the most similar histories (retrieval-augmented
self-distillation). With two content modalities (LLMESR++ in SICSRec's Table 4, of which no code or description exists)
the semantic vectors are summed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from torch import Tensor, nn

from stages.errors import InputError
from stages.models.baselines.material import Material
from stages.models.layers import attend, dropout, last_position
from stages.models.recommender import Recommender
from stages.models.softmax import next_item_loss
from stages.parallel import distributed
from stages.parallel.placement import to_device
from stages.parallel.static_shapes import select_targets, unique_items

LENGTH_GROUPS = 32  # of the neighbours' histories


@dataclass(frozen=True, kw_only=True)
class LlmEsrConfig:
    items: int  # N
    dim: int  # D of each view
    max_length: int
    widths: dict[str, int]  # length of each modality's vectors
    layers: int = 2
    cross_heads: int = 2
    dropout: float
    neighbours: int = 10
    distillation: float = 0.1  # weight of the self-distillation loss


def collaborative_start(vectors: dict[str, np.ndarray], *, dim: int, seed: int) -> Float[np.ndarray, "N D"]:
    """Initial ID embeddings: the principal components of the semantic vectors. vectors: {modality: (N, width)}.

    If there are fewer than D components, the other dimensions are drawn from a normal of standard deviation 0.02.
    """
    joined = np.concatenate([normalize(matrix) for matrix in vectors.values()], axis=1)
    components = min(dim, *joined.shape)
    reduced = PCA(components, random_state=seed).fit_transform(joined)
    rest = np.random.default_rng(seed).normal(scale=0.02, size=(len(joined), dim - components))
    return np.concatenate([reduced, rest], axis=1).astype(np.float32)


def similar_users(
    vectors: Float[np.ndarray, "N width"],
    values: Int[np.ndarray, " interactions"],
    offsets: Int[np.ndarray, " offsets"],
    neighbours: int,
) -> Int[np.ndarray, "users neighbours"]:
    """The nearest other users by the cosine of the mean vector of their histories.

    values, offsets: packed training histories, see Material. Raises InputError when there is one user alone.
    """
    lengths = np.diff(offsets)
    users = np.add.reduceat(vectors[values - 1], offsets[:-1], axis=0) / lengths[:, None]
    if len(users) == 1:
        raise InputError("LLM-ESR learns from similar users, and there is one user alone: leave it out of baselines")
    count = min(neighbours, len(users) - 1)
    search = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute").fit(users)
    return search.kneighbors(return_distance=False)  # without queries: of the fitted users, each without itself


class CrossAttention(nn.Module):
    """Causal attention of one view over the other: no residual, no norm, no dropout, as published."""

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.output = nn.Linear(dim, dim)

    def forward(self, query: Float[Tensor, "B L D"], memory: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, memory), (self.value, memory))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(mixed.transpose(1, 2).flatten(2))


class PreNormBlock(nn.Module):
    """SASRec's published block: LayerNorm on the queries but not on keys and values, one head, ReLU."""

    def __init__(self, *, dim: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.attention_norm, self.ffn_norm = nn.LayerNorm(dim, eps=1e-8), nn.LayerNorm(dim, eps=1e-8)
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim) for _ in range(4))
        self.inner, self.outer = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "B L D"], items: Int[Tensor, "B L"] | None = None) -> Float[Tensor, "B _ D"]:
        """State at every position; with items (0 = padding, at the right) only at each row's last item: (B, 1, D)."""
        query = self.attention_norm(x if items is None else last_position(x, items)[:, None])
        mixed = self._attend(query, x) if items is None else self._attend_once(query, x, items > 0)
        x = self.ffn_norm(query + self.output(mixed))
        inner = F.relu(dropout(self.inner(x), self.rate, training=self.training))
        return x + dropout(self.outer(inner), self.rate, training=self.training)

    def _attend(self, query: Float[Tensor, "B L D"], x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        q, k, v = self.query(query)[:, None], self.key(x)[:, None], self.value(x)[:, None]  # one head
        return attend(q, k, v, None, self.rate if self.training else 0.0)[:, 0]

    def _attend_once(
        self, query: Float[Tensor, "B 1 D"], x: Float[Tensor, "B L D"], visible: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B 1 D"]:
        """Without keys and values, as in layers.Attention.single; equal up to rounding."""
        q = self.query(query) * query.shape[-1] ** -0.5
        scores = (q @ self.key.weight) @ x.transpose(1, 2) + (q * self.key.bias).sum(dim=-1, keepdim=True)
        weights = scores.masked_fill(~visible[:, None], float("-inf")).softmax(dim=-1)  # (B, 1, L)
        weights = dropout(weights, self.rate, training=self.training)
        return (weights @ x) @ self.value.weight.T + weights.sum(dim=-1, keepdim=True) * self.value.bias


class LlmEsr(Recommender):
    """Two views of a history, each attending to the other, through one shared backbone.

    A state is the concatenation of both views: (…, d) with d = 2 D. Item 0 is padding, at the right.
    """

    histories: Tensor

    def __init__(
        self,
        config: LlmEsrConfig,
        vectors: dict[str, np.ndarray],
        start: Float[np.ndarray, "N D"],
        neighbours: Int[np.ndarray, "users K"],
        histories: Int[np.ndarray, "users L"],
    ) -> None:
        """vectors: {modality: (N, width)}, not trained. start: of ID embeddings. histories: what `teachers` reads."""
        super().__init__()
        self.config = c = config
        for name, matrix in vectors.items():
            unit = F.normalize(torch.from_numpy(matrix), dim=-1)
            self.register_buffer(f"semantic_{name}", F.pad(unit, (0, 0, 1, 0)))
        self.register_buffer("histories", torch.from_numpy(histories), persistent=False)
        # not buffers: they stay in main memory, where looking them up needs no GPU sync
        self.neighbours, self.lengths = torch.from_numpy(neighbours), torch.from_numpy((histories > 0).sum(axis=1))
        self.adapters = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(w, w // 2), nn.Linear(w // 2, c.dim)) for name, w in c.widths.items()}
        )
        self.item_embedding = nn.Embedding(c.items + 1, c.dim)
        self.position_embedding = nn.Embedding(c.max_length, c.dim)
        self.to_id, self.to_semantic = (CrossAttention(dim=c.dim, heads=c.cross_heads) for _ in range(2))
        self.blocks = nn.ModuleList(PreNormBlock(dim=c.dim, rate=c.dropout) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.dim, eps=1e-8)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
        with torch.no_grad():
            self.item_embedding.weight[0] = 0
            self.item_embedding.weight[1:] = torch.from_numpy(start)

    def views(self, items: Int[Tensor, " n"]) -> tuple[Float[Tensor, "n D"], Float[Tensor, "n D"]]:
        """ID embeddings and adapted semantic vectors of items."""
        semantic = [adapter(getattr(self, f"semantic_{name}")[items]) for name, adapter in self.adapters.items()]
        return self.item_embedding(items), torch.stack(semantic).sum(dim=0)

    def _backbone(self, x: Tensor, items: Tensor | None) -> Tensor:
        *lower, top = self.blocks
        for block in lower:
            x = block(x)
        return self.norm(top(x, items))

    def hidden(self, items: Int[Tensor, "B L"], last: bool = False) -> Float[Tensor, "B _ d"]:
        """State after each item; last: only after each row's last item, (B, 1, d)."""
        c, (unique, inverse, _) = self.config, unique_items(items)
        positions = self.position_embedding.weight[: items.shape[1]]
        ids, semantic = (
            dropout(F.embedding(inverse, view) * c.dim**0.5 + positions, c.dropout, training=self.training)
            for view in self.views(unique)
        )
        crossed = self.to_id(semantic, ids), self.to_semantic(ids, semantic)
        return torch.cat([self._backbone(view, items if last else None) for view in crossed], dim=-1)

    def candidates(self, items: Int[Tensor, " n"] | None) -> Float[Tensor, "n d"]:
        """Both views of items, which the loss scores states against; None: of all items, row i − 1 is item i."""
        if items is None:
            items = torch.arange(1, self.config.items + 1, device=self.norm.weight.device)
        return torch.cat(self.views(items), dim=-1)

    def item_matrix(self) -> Float[Tensor, "N d"]:
        """What states are ranked by: row i − 1 is item i."""
        return self.candidates(None)

    def loss(
        self, items: Int[Tensor, "B L"], targets: Int[Tensor, "B L"], users: Int[np.ndarray, " B"]
    ) -> dict[str, Tensor]:
        """Cross-entropy at every target position, plus self-distillation. targets: 0 = none. users: of each row."""
        states = self.hidden(items)
        ce = next_item_loss(*select_targets(states, targets), self.candidates, self.sampler)
        distilled = self.distil(last_position(states, items), torch.from_numpy(users))
        return {"loss": ce + self.config.distillation * distilled, "ce": ce, "distillation": distilled}

    def distil(self, states: Float[Tensor, "B d"], users: Int[Tensor, " B"]) -> Float[Tensor, ""]:
        """Mean squared distance of users' states from the mean state of their neighbours, which gets no gradient.

        users: in main memory.
        """
        unique, inverse = self.neighbours[users].unique(return_inverse=True)  # (n,), (B, K)
        mean = self.teachers(unique)[to_device(inverse, states.device)].mean(dim=1)
        return distributed.mean_across_ranks((states - mean).square().mean(dim=1))

    @torch.no_grad()
    def teachers(self, users: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """States of users, computed in groups of similar history length to save padding. users: in main memory."""
        lengths, device = self.lengths[users], self.histories.device
        order = lengths.argsort(stable=True)
        states = [
            self.last_hidden(self.histories[to_device(users[part], device), : lengths[part].max()])
            for part in order.chunk(LENGTH_GROUPS)
        ]
        return torch.cat(states)[to_device(order.argsort(), device)]

    @torch.no_grad()
    def last_hidden(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B d"]:
        """State after each row's last item."""
        return self.hidden(items, last=True)[:, 0]


def build(material: Material) -> LlmEsr:
    """An untrained LLM-ESR; its ID embeddings start at the principal components of the content vectors."""
    m = material
    config = LlmEsrConfig(items=m.items, dim=m.dim, dropout=m.dropout, max_length=m.max_length, widths=m.widths)
    near = similar_users(np.concatenate(list(m.vectors.values()), axis=1), m.values, m.offsets, config.neighbours)
    start = collaborative_start(m.vectors, dim=m.dim, seed=m.seed)
    return LlmEsr(config, m.vectors, start, near, m.inputs())


def restore(config: dict[str, Any]) -> LlmEsr:
    """A system of this configuration, to load saved weights and vectors into."""
    c = LlmEsrConfig(**config)
    vectors = {name: np.zeros((c.items, width), dtype=np.float32) for name, width in c.widths.items()}
    untrained, no_users = np.zeros((c.items, c.dim), dtype=np.float32), np.zeros((0, 0), dtype=np.int64)
    return LlmEsr(c, vectors, untrained, neighbours=no_users, histories=no_users)  # users are for training only
