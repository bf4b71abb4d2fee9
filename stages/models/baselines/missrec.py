"""MISSRec (Wang et al. 2023), trained from scratch on one dataset: interests are clusters of items' content vectors.

An encoder reads the interests of a history, a decoder reads its items and attends to the encoder's output. The decoder
is not causal, so each prefix of a history is a training example of its own.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn

from stages.models.baselines.material import Material
from stages.models.baselines.table_attention import TableAttention
from stages.models.layers import Attention, FeedForward, NormDropout, initialise, last_position
from stages.models.recommender import Recommender
from stages.models.scores import inner_products
from stages.models.softmax import cross_entropy_over_all
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
    dropout: float
    interest_ratio: float = 0.5  # clusters per content vector
    tau: float = 0.07
    gamma: float = 1e-4  # weight of the interest regulariser

    @property
    def interests(self) -> int:
        return max(1, round(self.interest_ratio * self.items * len(self.widths)))


class MissRec(Recommender):
    """Interest-aware encoder-decoder over adapted content (and ID) vectors, scored by fused cosines.

    M: number of content modalities. I = M · L: number of interests of a row, padded. Item and interest 0 are padding.
    """

    interests: Tensor
    interest_of: Tensor

    def __init__(self, config: MissRecConfig, vectors: dict[str, Tensor]) -> None:
        """vectors: {modality: (N, width)}, which are not trained."""
        super().__init__()
        self.config = c = config
        for name, table in vectors.items():
            self.register_buffer(f"content_{name}", F.pad(table, (0, 0, 1, 0)))
        self.register_buffer("interests", torch.zeros(c.interests + 1, c.dim))  # row 0 is padding
        self.register_buffer("interest_of", torch.zeros(len(c.widths), c.items + 1, dtype=torch.long))
        if c.use_id:
            self.item_embedding = nn.Embedding(c.items + 1, c.dim)
        self.position_embedding = nn.Embedding(c.max_length, c.dim)
        self.interest_attention = TableAttention(dim=c.dim, heads=c.heads, dropout=c.dropout)
        self.interest_feed_forward = FeedForward(dim=c.dim, dropout=c.dropout)
        self.encoder_norm = nn.LayerNorm(c.dim, eps=1e-12)
        self.input = NormDropout(dim=c.dim, dropout=c.dropout)
        self.self_attention = Attention(dim=c.dim, heads=c.heads, dropout=c.dropout)
        self.cross_attention = Attention(dim=c.dim, heads=c.heads, dropout=c.dropout)
        self.feed_forward = FeedForward(dim=c.dim, dropout=c.dropout)
        self.decoder_norm = nn.LayerNorm(c.dim, eps=1e-12)
        initialise(self)
        self.adaptors = nn.ModuleDict({name: nn.Linear(width, c.dim) for name, width in c.widths.items()})
        if len(c.widths) > 1:
            self.fusion = nn.Parameter(torch.zeros(()))  # 0: the plain mean of the modalities

    def adapted(self, items: Int[Tensor, " n"]) -> list[Float[Tensor, "n D"]]:
        """Adapted vectors of each modality."""
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

    def interest_tokens(self, items: Int[Tensor, "B L"]) -> Int[Tensor, "B I"]:
        """The interests of each row's items, each once."""
        tokens = self.interest_of[:, items].permute(1, 0, 2).flatten(1).sort(dim=1).values
        repeats = F.pad(tokens[:, 1:] == tokens[:, :-1], (1, 0))
        return tokens.masked_fill(repeats, 0)

    def encode_interests(self, items: Int[Tensor, "B L"]) -> tuple[Float[Tensor, "B I D"], Bool[Tensor, "B I"]]:
        """Encoder output of each row's interests, and which of them are not padding."""
        tokens = self.interest_tokens(items)
        unique, inverse, _ = unique_items(tokens)
        attended = self.interest_attention(self.interests[unique], inverse, visible=tokens > 0)
        return self.encoder_norm(self.interest_feed_forward(attended)), tokens > 0

    def decode(
        self, items: Int[Tensor, "B L"], memory: Float[Tensor, "B I D"], visible: Bool[Tensor, "B I"]
    ) -> Float[Tensor, "B D"]:
        """Unit state at each row's last item, which attends to the whole row and to the interests in `memory`."""
        unique, inverse, _ = unique_items(items)
        vectors = torch.stack(self.adapted(unique)).sum(dim=0)
        if self.config.use_id:
            vectors = vectors + self.item_embedding(unique)
        x = self.input(F.embedding(inverse, vectors) + self.position_embedding.weight[: items.shape[1]])
        state = self.self_attention.single(last_position(x, items), x, items > 0)  # no other position's state is needed
        state = self.cross_attention.single(state, memory, visible)
        return F.normalize(self.decoder_norm(self.feed_forward(state)), dim=-1)

    def item_matrix(self) -> Float[Tensor, "parts N D"]:
        """Unit vectors of each modality; with several modalities and `use_id`, of the ID too."""
        items = self._all_items()
        parts = self.adapted(items)
        if self.config.use_id:
            ids = self.item_embedding(items)
            parts = [parts[0] + ids] if len(parts) == 1 else [*parts, ids]
        return F.normalize(torch.stack(parts), dim=-1)

    def scores(self, hidden: Float[Tensor, "B D"], item_matrix: Float[Tensor, "parts N D"]) -> Float[Tensor, "B N"]:
        """Fused cosines: modalities weighted by a softmax of their own cosines."""
        count = len(self.config.widths)
        if count == 1:
            return inner_products(hidden, item_matrix[0])
        cosines = hidden @ item_matrix.transpose(1, 2)  # (parts, B, N)
        content = cosines[:count]
        fused = ((self.fusion * content).softmax(dim=0) * content).sum(dim=0)
        return (count * fused + cosines[count]) / (count + 1) if self.config.use_id else fused

    def loss(self, items: Int[Tensor, "B L"], targets: Int[Tensor, "B L"]) -> dict[str, Tensor]:
        """Cross-entropy over all items of score / τ, and the regulariser of the pooled interests.

        items: one prefix per row; targets: the next item at the prefix's last position, 0 elsewhere.
        """
        memory, visible = self.encode_interests(items)
        states, item_matrix = self.decode(items, memory, visible), self.item_matrix()
        answers = last_position(targets, items)
        if len(item_matrix) == 1:
            losses = cross_entropy_over_all(states / self.config.tau, item_matrix[0], answers)
        else:
            losses = F.cross_entropy(self.scores(states, item_matrix) / self.config.tau, answers - 1, reduction="none")
        ce = distributed.mean_across_ranks(losses)
        pooled = (memory * visible[..., None]).sum(dim=1) / visible.sum(dim=1, keepdim=True)
        regulariser = distributed.mean_across_ranks(pooled.square().mean(dim=1))
        return {"loss": ce + self.config.gamma * regulariser, "ce": ce, "regulariser": regulariser}

    @torch.no_grad()
    def last_hidden(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """State after each row's last item. items: 0 = padding, at the right."""
        return self.decode(items, *self.encode_interests(items))


def build(material: Material, *, use_id: bool) -> MissRec:
    """An untrained MISSRec over the material's content vectors, with or without IDs."""
    m = material
    config = MissRecConfig(
        items=m.items, dim=m.dim, dropout=m.dropout, max_length=m.max_length, widths=m.widths, use_id=use_id
    )
    return MissRec(config, m.tensors)


def restore(config: dict[str, Any]) -> MissRec:
    """A system of this configuration, to load saved weights, vectors and interests into."""
    c = MissRecConfig(**config)
    return MissRec(c, {name: torch.zeros(c.items, width) for name, width in c.widths.items()})
