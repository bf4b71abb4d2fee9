"""MISSRec (Wang et al. 2023), trained from scratch on one dataset: interests are clusters of items' content vectors.

An encoder reads the interests of a history, a decoder reads its items and looks at the encoder's output. The decoder
sees the whole history at once, so that training goes prefix by prefix.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn

from stages.models.baselines.lean import SingleQueryAttention, TableAttention
from stages.models.baselines.material import Material
from stages.models.layers import FeedForward, NormDropout, initialise, last_position
from stages.parallel import distributed
from stages.parallel.static_shapes import unique_items


@dataclass(frozen=True, kw_only=True)
class MissRecConfig:
    items: int  # N
    dim: int  # D
    max_length: int
    widths: dict[str, int]  # length of each modality's vectors
    use_id: bool
    heads: int = 4
    dropout: float = 0.5
    interest_ratio: float = 0.5  # clusters a content vector
    tau: float = 0.07
    gamma: float = 1e-4  # weight of the interest regulariser

    @property
    def interests(self) -> int:
        return max(1, round(self.interest_ratio * self.items * len(self.widths)))


class MissRec(nn.Module):
    """Interest-aware encoder-decoder over adapted content (and ID) vectors, scored by fused cosines."""

    def __init__(self, config: MissRecConfig, vectors: dict[str, Tensor]) -> None:
        """vectors: {modality: (N, width)}, fixed."""
        super().__init__()
        self.config = c = config
        for name, table in vectors.items():
            self.register_buffer(f"content_{name}", F.pad(table, (0, 0, 1, 0)))
        self.register_buffer("interests", torch.zeros(c.interests + 1, c.dim))  # row 0 is padding
        self.register_buffer("interest_of", torch.zeros(len(c.widths), c.items + 1, dtype=torch.long))
        if c.use_id:
            self.item_embedding = nn.Embedding(c.items + 1, c.dim)
        self.position_embedding = nn.Embedding(c.max_length, c.dim)
        self.interest_attention = TableAttention(c.dim, c.heads, c.dropout)
        self.interest_feed_forward = FeedForward(c.dim, c.dropout)
        self.encoder_norm = nn.LayerNorm(c.dim, eps=1e-12)
        self.input = NormDropout(c.dim, c.dropout)
        self.self_attention = SingleQueryAttention(c.dim, c.heads, c.dropout)
        self.cross_attention = SingleQueryAttention(c.dim, c.heads, c.dropout)
        self.feed_forward = FeedForward(c.dim, c.dropout)
        self.decoder_norm = nn.LayerNorm(c.dim, eps=1e-12)
        initialise(self)
        self.adaptors = nn.ModuleDict({name: nn.Linear(width, c.dim) for name, width in c.widths.items()})
        if len(c.widths) > 1:
            self.fusion = nn.Parameter(torch.zeros(()))  # f: 0 is the plain mean of the modalities

    def adapted(self, items: Tensor) -> list[Tensor]:
        """Each modality's vectors of distinct items. items: (n,) → M × (n, D)."""
        return [adaptor(getattr(self, f"content_{name}")[items]) for name, adaptor in self.adaptors.items()]

    def _all_items(self) -> Tensor:
        return torch.arange(1, self.config.items + 1, device=self.interests.device)

    @torch.no_grad()
    def start_epoch(self, seed: int) -> None:
        """Cluster all items' adapted vectors; each cluster is an interest."""
        points = torch.cat(self.adapted(self._all_items())).cpu().numpy()
        clusters = MiniBatchKMeans(
            self.config.interests, init="random", n_init=1, max_iter=5, random_state=seed,
            batch_size=max(2048, self.config.interests + self.config.interests // 10),
        ).fit(points)  # fmt: skip
        self.interests[1:] = torch.from_numpy(clusters.cluster_centers_)
        self.interest_of[:, 1:] = torch.from_numpy(clusters.labels_).long().view(-1, self.config.items) + 1

    def interest_tokens(self, items: Tensor) -> Tensor:
        """The distinct interests of each row's items, 0 = none. items: (B, L) → (B, M · L)."""
        tokens = self.interest_of[:, items].permute(1, 0, 2).flatten(1).sort(dim=1).values
        repeats = F.pad(tokens[:, 1:] == tokens[:, :-1], (1, 0))
        return tokens.masked_fill(repeats, 0)

    def encode_interests(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder output of each row's interests, and which are real. items: (B, L) → (B, I, D), (B, I)."""
        tokens = self.interest_tokens(items)
        distinct, where, _ = unique_items(tokens)
        attended = self.interest_attention(self.interests[distinct], where, visible=tokens > 0)
        return self.encoder_norm(self.interest_feed_forward(attended)), tokens > 0

    def decode(self, items: Tensor, memory: Tensor, real: Tensor) -> Tensor:
        """Unit state at each row's last item, which sees the whole row. items: (B, L) → (B, D)."""
        distinct, where, _ = unique_items(items)
        vectors = torch.stack(self.adapted(distinct)).sum(dim=0)
        if self.config.use_id:
            vectors = vectors + self.item_embedding(distinct)
        x = self.input(F.embedding(where, vectors) + self.position_embedding.weight[: items.shape[1]])
        asked = self.self_attention(last_position(x, items), x, items > 0)  # no other position's state is read
        asked = self.cross_attention(asked, memory, real)
        return F.normalize(self.decoder_norm(self.feed_forward(asked)), dim=-1)

    def item_matrix(self) -> Tensor:
        """Unit vectors of each modality, and of the ID where it is scored apart. → (M or M + 1, N, D)."""
        items = self._all_items()
        parts = self.adapted(items)
        if self.config.use_id:
            ids = self.item_embedding(items)
            parts = [parts[0] + ids] if len(parts) == 1 else [*parts, ids]
        return F.normalize(torch.stack(parts), dim=-1)

    def scores(self, hidden: Tensor, items: Tensor) -> Tensor:
        """Fused cosines: modalities weighted by a softmax of their own cosines. (B, D), item_matrix() → (B, N)."""
        cosines = hidden @ items.transpose(1, 2)  # (parts, B, N)
        count = len(self.config.widths)
        if count == 1:
            return cosines[0]
        content = cosines[:count]
        fused = ((self.fusion * content).softmax(dim=0) * content).sum(dim=0)
        return (count * fused + cosines[count]) / (count + 1) if self.config.use_id else fused

    def loss(self, items: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross-entropy over all items of score / τ, and the regulariser of the pooled interests.

        items: (B, L), prefixes; targets: (B, L), the next item at each prefix's last position, else 0.
        """
        memory, real = self.encode_interests(items)
        scores = self.scores(self.decode(items, memory, real), self.item_matrix()) / self.config.tau
        ce = distributed.mean_across_ranks(F.cross_entropy(scores, last_position(targets, items) - 1, reduction="none"))
        pooled = (memory * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)
        regulariser = distributed.mean_across_ranks(pooled.square().mean(dim=1))
        return {"loss": ce + self.config.gamma * regulariser, "ce": ce, "regulariser": regulariser}

    @torch.no_grad()
    def last_hidden(self, items: Tensor) -> Tensor:
        """State after each row's last item. items: (B, L) → (B, D)."""
        return self.decode(items, *self.encode_interests(items))


def build(material: Material, *, use_id: bool) -> MissRec:
    """An untrained MISSRec over the material's content vectors, with or without IDs."""
    m = material
    config = MissRecConfig(items=m.items, dim=m.dim, max_length=m.max_length, widths=m.widths, use_id=use_id)
    return MissRec(config, m.tensors)
