"""SICSRec: ID and content streams, a decoder between them, content-aware contrastive learning (paper 3.4–3.5)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from stages.models.content import Content, fuse_modalities
from stages.models.layers import Block, NormDropout, TransformerEncoder, add_lora, dropout, initialise, last_position
from stages.models.recommender import Recommender
from stages.models.sasrec import Sasrec
from stages.models.softmax import next_item_loss
from stages.parallel import distributed
from stages.parallel.static_shapes import select_targets


@dataclass(frozen=True, kw_only=True)
class SicsrecConfig:
    items: int  # N
    dim: int  # D
    layers: int
    decoder_layers: int
    heads: int
    dropout: float
    item_dropout: float  # on the item table inside the softmax
    max_length: int
    tau: float  # temperature of the softmax and of eq. 18
    alpha: float  # weight of the contrastive loss, eq. 19
    lam: float  # weight of the regulariser, eq. 19
    rank: int  # of the low-rank update, eq. 20
    widths: dict[str, int]  # length of each content modality's vectors; empty = no content
    use_id: bool  # whether "id" is among the modalities
    without: tuple[str, ...] = ()  # parts that are left out (Table 7)
    frozen: tuple[str, ...] = ()  # parts that are not trained (Table 9)
    content_weight: float | None = None  # of content in `item_vectors`, which items are ranked by; None: eq. 16

    @property
    def id_stream(self) -> bool:
        return self.use_id and "imse" not in self.without

    @property
    def content_stream(self) -> bool:
        return bool(self.widths) and "cmse" not in self.without

    @property
    def decoder(self) -> bool:
        return self.id_stream and bool(self.widths) and "mmsd" not in self.without

    @property
    def lora(self) -> bool:
        return self.id_stream and "id_encoder" in self.frozen and "lora" not in self.without

    @property
    def needs_id_encoder(self) -> bool:
        """Whether an ID part is frozen, and so starts from the encoder of step one (section 3.5)."""
        return self.use_id and not {"id_embedding", "id_encoder"}.isdisjoint(self.frozen)

    @property
    def needs_content_first(self) -> bool:
        """Whether a content part is frozen, and so is trained alone beforehand (Table 9)."""
        return not {"content_embedding", "content_encoder"}.isdisjoint(self.frozen)

    def with_order(self, modalities: Sequence[str]) -> "SicsrecConfig":
        """The same with `widths` in the order of params.yaml: adapters draw their initial weights in it.

        A file has them sorted by name.
        """
        return replace(self, widths={name: self.widths[name] for name in modalities if name in self.widths})

    def refusal(self) -> str | None:
        """Why this combination of modalities, `without` and `frozen` is refused, or None."""
        absent = [name for name in self.without if name in ("imse", "mmsd", "lora") and not self.use_id]
        if absent:
            return f"without={absent[0]} takes the ID stream's part away, but modalities has no id"
        absent = [name for name in self.without if name in ("cmse", "mmsd", "concl", "l2norm") and not self.widths]
        if absent:
            return f"without={absent[0]} takes a content part away, but modalities has neither text nor image"
        if "lora" in self.without and "imse" in self.without:
            return "without=lora has no meaning beside without=imse: there is no ID encoder left to adapt"
        if "mmsd" in self.without and "imse" in self.without:
            return "without=mmsd has no meaning beside without=imse: the decoder reads the ID stream and went with it"
        if "l2norm" in self.without and "cmse" in self.without:
            return "without=l2norm has no meaning beside without=cmse: it gives each modality an encoder of its own"
        if "content_encoder" in self.frozen and "cmse" in self.without:
            return "frozen=content_encoder has no meaning beside without=cmse: there is no content encoder"
        if not (self.id_stream or self.content_stream):
            return f"without={list(self.without)} leaves neither an ID stream nor a content stream"
        if not (self.content_stream or self.decoder) and self.widths:
            return f"without={list(self.without)} leaves nothing that reads content: use modalities=[id] for that"
        return None


class Sicsrec(Recommender):
    """The two streams, the decoder between them and the projection of their outputs (eq. 15).

    Items of shape (B, L) are right-padded with 0.
    """

    item_vectors: Tensor  # (N, D), if `rank_by` was called

    def __init__(self, config: SicsrecConfig, pretrained: Sasrec | None = None) -> None:
        """pretrained: the encoder that the ID side starts from (section 3.5, step one)."""
        super().__init__()
        self.config = c = config
        self.position_embedding = nn.Embedding(c.max_length, c.dim)  # shared by the streams
        if c.use_id:
            self.item_embedding = nn.Embedding(c.items + 1, c.dim)
        if c.id_stream:
            self.id_input = NormDropout(dim=c.dim, dropout=c.dropout)
            self.id_encoder = self._new_encoder()
        if c.widths:
            self.content = Content(items=c.items, dim=c.dim, widths=c.widths)
            streams = tuple(c.widths) if "l2norm" in c.without else ("content",)
            self.content_input = nn.ModuleDict({name: NormDropout(dim=c.dim, dropout=c.dropout) for name in streams})
        if c.content_stream:
            self.content_encoder = nn.ModuleDict({name: self._new_encoder() for name in self.content_input})
        if c.decoder:
            self.decoder_query = NormDropout(dim=c.dim, dropout=c.dropout)
            self.decoder_memory = NormDropout(dim=c.dim, dropout=c.dropout)
            blocks = [Block(dim=c.dim, heads=c.heads, dropout=c.dropout) for _ in range(c.decoder_layers)]
            self.decoder = nn.ModuleList(blocks)
        if c.content_weight is not None:
            self.register_buffer("item_vectors", torch.zeros(c.items, c.dim))
        self.projection = nn.Linear(c.dim * (c.id_stream + c.content_stream + c.decoder), c.dim)
        initialise(self)
        if pretrained:
            self._load_id_encoder(pretrained)
        self._freeze()

    def _new_encoder(self) -> TransformerEncoder:
        c = self.config
        return TransformerEncoder(layers=c.layers, dim=c.dim, heads=c.heads, dropout=c.dropout)

    def _load_id_encoder(self, pretrained: Sasrec) -> None:
        self.item_embedding.load_state_dict(pretrained.item_embedding.state_dict())
        self.position_embedding.load_state_dict(pretrained.position_embedding.state_dict())
        if self.config.id_stream:
            self.id_input.load_state_dict(pretrained.input.state_dict())
            self.id_encoder.load_state_dict(pretrained.encoder.state_dict())

    def _freeze(self) -> None:
        renamed = {"id_embedding": "item_embedding", "content_embedding": "content"}
        for name in self.config.frozen:
            if part := getattr(self, renamed.get(name, name), None):
                part.requires_grad_(False)
        if self.config.lora:
            add_lora(self.id_encoder, self.config.rank)

    @torch.no_grad()
    def load_content_vectors(self, vectors: dict[str, Tensor]) -> None:
        """Copy the text and image encoders' vectors into the tables. vectors: {modality: (N, width)}.

        When items are scored by content (no `id`), the mean vector is subtracted: the component that all vectors share
        makes first-epoch states nearly parallel, and validation does not improve for about 15 epochs.
        """
        for name, table in self.content.tables.items():
            start = vectors[name] if self.config.use_id else vectors[name] - vectors[name].mean(dim=0)
            table.get_parameter("weight").copy_(F.pad(start, (0, 0, 1, 0)))  # row 0 is padding

    def load_content_side(self, pretrained: "Sicsrec") -> None:
        """Start the content side, and the positions that both streams share, from a content-only model (Table 9)."""
        for part in ("position_embedding", "content", "content_input", "content_encoder"):
            if hasattr(self, part):
                getattr(self, part).load_state_dict(getattr(pretrained, part).state_dict())

    def _content_states(self, items: Tensor, positions: Tensor, last: bool) -> Tensor:
        adapted = self.content(items)
        streams = adapted if "l2norm" in self.config.without else {"content": fuse_modalities(adapted)}
        states = []
        for name, vectors in streams.items():
            x = self.content_input[name](vectors + positions)
            if self.config.content_stream:
                encoder = cast(TransformerEncoder, self.content_encoder[name])
                x = encoder.last(x, items) if last else encoder(x)  # eqs. 11, 12
            states.append(x)
        return torch.stack(states).sum(dim=0)

    def hidden(self, items: Int[Tensor, "B L"], last: bool = False) -> Float[Tensor, "B _ D"]:
        """Unit state after each item (eqs. 5–15).

        last: only the state after each row's last item, (B, 1, D), and only what that state depends on is computed.
        """
        c, positions = self.config, self.position_embedding.weight[: items.shape[1]]
        parts = []
        if c.id_stream:
            x = self.id_input(self.item_embedding(items) + positions)  # eq. 5
            parts.append(self.id_encoder.last(x, items) if last else self.id_encoder(x))  # eqs. 8, 9
        if c.widths:
            content = self._content_states(items, positions, last and not c.decoder)
            if c.content_stream:
                parts.append(last_position(content, items)[:, None] if last and c.decoder else content)
        if c.decoder:
            mixed, memory = self.decoder_query(parts[0]), self.decoder_memory(content)
            for block in self.decoder:
                mixed = block(mixed, memory, items > 0 if last else None)  # eqs. 13, 14
            parts.append(mixed)
        return F.normalize(self.projection(torch.cat(parts, dim=-1)), dim=-1)  # eq. 15

    def candidates(self, items: Int[Tensor, " n"] | None) -> Float[Tensor, "n D"]:
        """Unit ID embeddings, or without `id` fused content vectors. None: of all items, row i − 1 is item i."""
        if self.config.use_id:
            table = self.item_embedding.weight[1:] if items is None else self.item_embedding(items)
        else:
            table = self.content_vectors() if items is None else fuse_modalities(self.content(items))
        return F.normalize(dropout(table, self.config.item_dropout, training=self.training, table=True), dim=-1)

    def content_vectors(self) -> Float[Tensor, "N D"]:
        """The unit content vector of every item (eq. 10); row i − 1 is item i."""
        every = torch.arange(1, self.config.items + 1, device=self.projection.weight.device)
        return fuse_modalities(self.content(every))

    def rank_by(self, vectors: Float[Tensor, "N D"], *, content_weight: float) -> None:
        """Rank items by these vectors from now on, of which content has this share; see content_scoring.py."""
        self.config = replace(self.config, content_weight=content_weight)
        self.register_buffer("item_vectors", vectors)

    @torch.no_grad()
    def item_matrix(self) -> Float[Tensor, "N D"]:
        """What states are ranked by: the vectors that the loss uses (eq. 16), or those given to `rank_by`."""
        return self.candidates(None) if self.config.content_weight is None else self.item_vectors

    def loss(self, items: Int[Tensor, "B L"], targets: Int[Tensor, "B L"]) -> dict[str, Tensor]:
        """Eq. 19 and its terms. targets: 0 = none."""
        c = self.config
        states, answers = select_targets(self.hidden(items), targets)
        total = next_item_loss(states / c.tau, answers, self.candidates, self.sampler, self.smoothing)  # eq. 17
        terms = {"ce": total}
        if c.widths and "concl" not in c.without:
            terms["concl"] = self.contrastive(states, answers)
            total = total + c.alpha * terms["concl"]
        rows = distributed.unique_across_ranks(torch.cat([items.flatten(), answers]))
        terms["regulariser"] = self.regulariser(rows.items, rows.valid)
        return {"loss": total + c.lam * terms["regulariser"], **terms}

    def contrastive(self, states: Float[Tensor, "P D"], targets: Int[Tensor, " P"]) -> Float[Tensor, ""]:
        """Content-aware contrastive loss (eq. 18). targets: 0 = none.

        Negatives are the batch's other target items, each once: an item is never its own negative.
        """
        unique, inverse, valid = distributed.unique_across_ranks(targets)
        scores = states @ fuse_modalities(self.content(unique)).T / self.config.tau
        scores = scores.masked_fill(~(valid & (unique > 0)), float("-inf"))
        return distributed.mean_across_ranks(F.cross_entropy(scores, inverse, reduction="none"), targets > 0)

    def regulariser(self, items: Int[Tensor, " n"], valid: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
        """Sum of the Frobenius norms of the trainable embedding tables (eq. 19). items, valid: see UniqueItems.

        Only the batch's rows count: under Adam a penalty on whole tables shrinks rows that have no other gradient
        (items that training never sees) to zero at the full learning rate, whatever λ is.
        """
        tables: list[nn.Module] = [self.item_embedding] if self.config.use_id else []
        tables += self.content.tables.values() if self.config.widths else []
        trained = [table for table in tables if table.get_parameter("weight").requires_grad]
        norms = [torch.linalg.norm(table(items) * valid[:, None]) for table in trained]
        return torch.stack(norms).sum() if norms else torch.zeros((), device=items.device)

    @torch.no_grad()
    def last_hidden(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """State after each row's last item."""
        return self.hidden(items, last=True)[:, 0]
