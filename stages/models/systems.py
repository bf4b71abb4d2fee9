"""Every other system of the paper's Table 4, by name: how it is built, what it reads, how it is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import Tensor, nn

from stages.models.baselines.bert4rec import Bert4Rec, Bert4RecConfig
from stages.models.baselines.gru4rec import Gru4Rec, Gru4RecConfig
from stages.models.baselines.itemknn import ItemKnn, ItemKnnConfig, similarities
from stages.models.baselines.llmesr import LlmEsr, LlmEsrConfig, collaborative_start, last_inputs, similar_users
from stages.models.baselines.missrec import MissRec, MissRecConfig
from stages.models.baselines.popularity import Popularity, PopularityConfig
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.models.baselines.unisrec import UniSRec, UniSRecConfig
from stages.models.baselines.vqrec import VqRec, VqRecConfig, optimised_codes

DECAYS = (0.2, 0.4, 0.6, 0.8, 1.0)  # of ItemKNN, chosen by validation


@dataclass(frozen=True)
class Material:
    """What systems are built from: sizes, packed training histories and the items' content vectors."""

    items: int  # N
    dim: int  # D
    layers: int
    heads: int
    dropout: float
    max_length: int
    seed: int
    values: np.ndarray  # (interactions,) in 1…N
    offsets: np.ndarray  # (users + 1,)
    vectors: dict[str, np.ndarray]  # {modality: (N, width)}
    validate: Callable[[nn.Module], float]  # a model's validation ndcg@10

    @property
    def widths(self) -> dict[str, int]:
        return {name: matrix.shape[1] for name, matrix in self.vectors.items()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(matrix) for name, matrix in self.vectors.items()}


class Scheme(Enum):
    """How a system is trained."""

    COUNTED = "nothing is trained"
    POSITIONS = "every position of a history at once: the system is causal, or masks items of its own"
    POSITIONS_WITH_USERS = "the same, knowing whose histories they are"
    PREFIXES = "one prefix, one target: the system sees its whole input at once"


@dataclass(frozen=True)
class System:
    """A row of the table. content: the modalities that it reads."""

    build: Callable[[Material], nn.Module]
    scheme: Scheme
    content: tuple[str, ...] = ()


def _popularity(m: Material) -> nn.Module:
    model = Popularity(PopularityConfig(m.items))
    model.count(m.values)
    return model


def _itemknn(m: Material) -> nn.Module:
    similarity = similarities(m.values, m.offsets, m.items)
    return max((ItemKnn(ItemKnnConfig(m.items, decay), similarity) for decay in DECAYS), key=m.validate)


def _gru4rec(m: Material) -> nn.Module:
    return Gru4Rec(Gru4RecConfig(m.items, m.dim))


def _sasrec(m: Material) -> nn.Module:
    return Sasrec(SasrecConfig(m.items, m.dim, m.layers, m.heads, m.dropout, m.max_length))


def _bert4rec(m: Material) -> nn.Module:
    return Bert4Rec(Bert4RecConfig(m.items, m.dim, m.layers, m.heads, m.max_length))


def _unisrec(m: Material, use_id: bool) -> nn.Module:
    config = UniSRecConfig(m.items, m.dim, m.layers, m.heads, m.max_length, m.widths["text"], use_id)
    return UniSRec(config, m.tensors["text"])


def _vqrec(m: Material) -> nn.Module:
    config = VqRecConfig(m.items, m.dim, m.layers, m.heads, m.max_length)
    known = np.bincount(m.values, minlength=m.items + 1)[1:] > 0
    return VqRec(config, optimised_codes(m.vectors["text"], known, config.groups, config.centroids, m.seed))


def _missrec(m: Material, use_id: bool) -> nn.Module:
    return MissRec(MissRecConfig(m.items, m.dim, m.max_length, m.widths, use_id), m.tensors)


def _llmesr(m: Material) -> nn.Module:
    config = LlmEsrConfig(m.items, m.dim, m.max_length, m.widths)
    near = similar_users(np.concatenate(list(m.vectors.values()), axis=1), m.values, m.offsets, config.neighbours)
    start = collaborative_start(m.vectors, m.dim, m.seed)
    return LlmEsr(config, m.vectors, start, near, last_inputs(m.values, m.offsets, m.max_length))


SYSTEMS = {
    "pop": System(_popularity, Scheme.COUNTED),
    "itemknn": System(_itemknn, Scheme.COUNTED),
    "gru4rec": System(_gru4rec, Scheme.POSITIONS),
    "sasrec": System(_sasrec, Scheme.POSITIONS),
    "bert4rec": System(_bert4rec, Scheme.POSITIONS),
    "unisrec_t": System(lambda m: _unisrec(m, use_id=False), Scheme.POSITIONS, ("text",)),
    "unisrec_t_id": System(lambda m: _unisrec(m, use_id=True), Scheme.POSITIONS, ("text",)),
    "vqrec": System(_vqrec, Scheme.POSITIONS, ("text",)),
    "missrec_t": System(lambda m: _missrec(m, use_id=False), Scheme.PREFIXES, ("text",)),
    "missrec_t_id": System(lambda m: _missrec(m, use_id=True), Scheme.PREFIXES, ("text",)),
    "missrec_tv_id": System(lambda m: _missrec(m, use_id=True), Scheme.PREFIXES, ("text", "image")),
    "missrec_v": System(lambda m: _missrec(m, use_id=False), Scheme.PREFIXES, ("image",)),
    "missrec_tv": System(lambda m: _missrec(m, use_id=False), Scheme.PREFIXES, ("text", "image")),
    "missrec_v_id": System(lambda m: _missrec(m, use_id=True), Scheme.PREFIXES, ("image",)),
    "llmesr_t_id": System(_llmesr, Scheme.POSITIONS_WITH_USERS, ("text",)),
    "llmesr_tv_id": System(_llmesr, Scheme.POSITIONS_WITH_USERS, ("text", "image")),
}
