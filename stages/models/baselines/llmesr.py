"""LLM-ESR (Liu et al. 2024): a semantic and a collaborative view, cross-attention between them, self-distillation.

Each user learns from the users whose histories mean the same (retrieval-augmented self-distillation). With two content
modalities (LLMESR++ in SICSRec's Table 4, of which no code or description exists) the semantic vectors are summed.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from torch import Tensor, nn

from stages.models.baselines.material import Material
from stages.models.layers import attend, dropout, last_position
from stages.models.softmax import Sampler, next_item_loss
from stages.parallel import distributed
from stages.parallel.placement import to_device
from stages.parallel.static_shapes import select_targets, unique_items

LENGTH_CLASSES = 32  # of the neighbours' histories


@dataclass(frozen=True, kw_only=True)
class LlmEsrConfig:
    items: int  # N
    dim: int  # D of each view
    max_length: int
    widths: dict[str, int]  # length of each modality's vectors
    layers: int = 2
    cross_heads: int = 2
    dropout: float = 0.5
    neighbours: int = 10
    distillation: float = 0.1  # weight of the self-distillation loss


def collaborative_start(vectors: dict[str, np.ndarray], dim: int, seed: int) -> np.ndarray:
    """PCA of the items' semantic vectors: where the ID embeddings start. {modality: (N, width)} → (N, D).

    Where the vectors have fewer than D directions, the others start from a small normal.
    """
    joined = np.concatenate([normalize(matrix) for matrix in vectors.values()], axis=1)
    kept = min(dim, *joined.shape)
    reduced = PCA(kept, random_state=seed).fit_transform(joined)
    rest = np.random.default_rng(seed).normal(scale=0.02, size=(len(joined), dim - kept))
    return np.concatenate([reduced, rest], axis=1).astype(np.float32)


def similar_users(vectors: np.ndarray, values: np.ndarray, offsets: np.ndarray, neighbours: int) -> np.ndarray:
    """Each user's nearest others by the cosine of their histories' mean vector.

    vectors: (N, width); values, offsets: packed training histories. → (users, neighbours).
    """
    lengths = np.diff(offsets)
    users = np.add.reduceat(vectors[values - 1], offsets[:-1], axis=0) / lengths[:, None]
    count = min(neighbours, len(users) - 1)
    search = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute").fit(users)
    return search.kneighbors(return_distance=False)  # without an argument: of the fitted users, themselves left out


def last_inputs(values: np.ndarray, offsets: np.ndarray, max_length: int) -> np.ndarray:
    """Each user's latest training items without the very last, right-padded with 0. → (users, L), L ≤ max_length.

    values, offsets: packed training histories; a history of one item keeps it.
    """
    end = np.maximum(offsets[1:] - 1, offsets[:-1] + 1)
    start = np.maximum(offsets[:-1], end - max_length)
    index = start[:, None] + np.arange((end - start).max())
    return np.where(index < end[:, None], values[np.minimum(index, len(values) - 1)], 0)


class CrossAttention(nn.Module):
    """Causal attention of one view over the other: no residual, no norm, no dropout, as published."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.output = nn.Linear(dim, dim)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        """query, memory: (B, L, D) → (B, L, D)."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, memory), (self.value, memory))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(mixed.transpose(1, 2).flatten(2))


class PreNormBlock(nn.Module):
    """SASRec's own block: normed queries over plain keys and values, one head, ReLU."""

    def __init__(self, dim: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.attention_norm, self.ffn_norm = nn.LayerNorm(dim, eps=1e-8), nn.LayerNorm(dim, eps=1e-8)
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim) for _ in range(4))
        self.inner, self.outer = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, items: Tensor | None = None) -> Tensor:
        """x: (B, L, D) → (B, L, D); with items (B, L), 0 = padding at the right, after the last one only: (B, 1, D)."""
        query = self.attention_norm(x if items is None else last_position(x, items)[:, None])
        q, k, v = self.query(query)[:, None], self.key(x)[:, None], self.value(x)[:, None]  # one head
        visible = None if items is None else items > 0
        mixed = attend(q, k, v, visible, self.rate if self.training else 0.0)[:, 0]
        x = self.ffn_norm(query + self.output(mixed))
        inner = F.relu(dropout(self.inner(x), self.rate, self.training))
        return x + dropout(self.outer(inner), self.rate, self.training)


class LlmEsr(nn.Module):
    """Two views of a history, each informed by the other, through one shared backbone."""

    def __init__(
        self, config: LlmEsrConfig, vectors: dict[str, np.ndarray], start: np.ndarray, neighbours: np.ndarray,
        histories: np.ndarray,
    ) -> None:  # fmt: skip
        """vectors: {modality: (N, width)}, fixed; start: (N, D); neighbours: (users, K); histories: (users, L)."""
        super().__init__()
        self.config = c = config
        for name, matrix in vectors.items():
            unit = F.normalize(torch.from_numpy(matrix), dim=-1)
            self.register_buffer(f"semantic_{name}", F.pad(unit, (0, 0, 1, 0)))
        self.register_buffer("histories", torch.from_numpy(histories), persistent=False)
        # in main memory: a host that looks them up need not ask a card
        self.neighbours, self.lengths = torch.from_numpy(neighbours), torch.from_numpy((histories > 0).sum(axis=1))
        self.adapters = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(w, w // 2), nn.Linear(w // 2, c.dim)) for name, w in c.widths.items()}
        )
        self.item_embedding = nn.Embedding(c.items + 1, c.dim)
        self.position_embedding = nn.Embedding(c.max_length, c.dim)
        self.to_id, self.to_semantic = CrossAttention(c.dim, c.cross_heads), CrossAttention(c.dim, c.cross_heads)
        self.blocks = nn.ModuleList(PreNormBlock(c.dim, c.dropout) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.dim, eps=1e-8)
        self.sampler: Sampler | None = None  # of negatives; None: all items are
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
        with torch.no_grad():
            self.item_embedding.weight[0] = 0
            self.item_embedding.weight[1:] = torch.from_numpy(start)

    def views(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """ID embedding and adapted semantic vector of items. items: (n,) → (n, D), (n, D)."""
        semantic = [adapter(getattr(self, f"semantic_{name}")[items]) for name, adapter in self.adapters.items()]
        return self.item_embedding(items), torch.stack(semantic).sum(dim=0)

    def _backbone(self, x: Tensor, items: Tensor | None) -> Tensor:
        *lower, top = self.blocks
        for block in lower:
            x = block(x)
        return self.norm(top(x, items))

    def hidden(self, items: Tensor, last: bool = False) -> Tensor:
        """State of both views after each item. items: (B, L), 0 = padding at the right → (B, L, 2 D).

        last: only after each row's last item, (B, 1, 2 D).
        """
        distinct, where, _ = unique_items(items)
        positions = self.position_embedding.weight[: items.shape[1]]
        ids, semantic = (
            dropout(F.embedding(where, v) * self.config.dim**0.5 + positions, self.config.dropout, self.training)
            for v in self.views(distinct)
        )
        crossed = self.to_id(semantic, ids), self.to_semantic(ids, semantic)
        return torch.cat([self._backbone(view, items if last else None) for view in crossed], dim=-1)

    def candidates(self, items: Tensor | None) -> Tensor:
        """Both views of some items or of all. (n,) → (n, 2 D); None → (N, 2 D), row i − 1 is item i."""
        if items is None:
            items = torch.arange(1, self.config.items + 1, device=self.norm.weight.device)
        return torch.cat(self.views(items), dim=-1)

    def item_matrix(self) -> Tensor:
        """What states are ranked by. → (N, 2 D)."""
        return self.candidates(None)

    def loss(self, items: Tensor, targets: Tensor, users: np.ndarray) -> dict[str, Tensor]:
        """Cross-entropy at every target position, plus self-distillation.

        items, targets: (B, L), 0 = padding, no target; users: (B,) whose rows these are, in main memory.
        """
        states = self.hidden(items)
        ce = next_item_loss(*select_targets(states, targets), self.candidates, self.sampler)
        distilled = self.distil(last_position(states, items), torch.from_numpy(users))
        return {"loss": ce + self.config.distillation * distilled, "ce": ce, "distillation": distilled}

    def distil(self, states: Tensor, users: Tensor) -> Tensor:
        """Mean squared distance of users' states from the mean state of their neighbours, which do not learn from it.

        states: (B, 2 D), users: (B,) in main memory.
        """
        distinct, where = self.neighbours[users].unique(return_inverse=True)  # (n,), (B, K)
        taught = self.teachers(distinct)[to_device(where, states.device)].mean(dim=1)
        return distributed.mean_across_ranks((states - taught).square().mean(dim=1))

    @torch.no_grad()
    def teachers(self, users: Tensor) -> Tensor:
        """States of users (n,) in main memory, computed in classes of like length, with little padding. → (n, 2 D)."""
        lengths, device = self.lengths[users], self.histories.device
        order = lengths.argsort(stable=True)
        states = [
            self.last_hidden(self.histories[to_device(users[part], device), : lengths[part].max()])
            for part in order.chunk(LENGTH_CLASSES)
        ]
        return torch.cat(states)[to_device(order.argsort(), device)]

    @torch.no_grad()
    def last_hidden(self, items: Tensor) -> Tensor:
        """State after each row's last item. items: (B, L) → (B, 2 D)."""
        return self.hidden(items, last=True)[:, 0]


def build(material: Material) -> LlmEsr:
    """An untrained LLM-ESR; its ID embeddings start from the content vectors' principal components."""
    m = material
    config = LlmEsrConfig(items=m.items, dim=m.dim, max_length=m.max_length, widths=m.widths)
    near = similar_users(np.concatenate(list(m.vectors.values()), axis=1), m.values, m.offsets, config.neighbours)
    start = collaborative_start(m.vectors, m.dim, m.seed)
    return LlmEsr(config, m.vectors, start, near, last_inputs(m.values, m.offsets, m.max_length))
