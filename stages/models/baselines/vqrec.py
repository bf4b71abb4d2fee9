"""VQ-Rec (Hou et al. 2023), trained from scratch on one dataset: text becomes discrete codes, codes have embeddings."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.linalg import orthogonal_procrustes
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from stages.models.baselines.cosine import CosineConfig, CosineSequenceModel
from stages.models.baselines.material import Material
from stages.models.layers import initialise

ROUNDS = 5  # of rotation and clustering; the error changes little after


@dataclass(frozen=True, kw_only=True)
class VqRecConfig(CosineConfig):
    groups: int = 32  # sub-vectors, each with a code
    centroids: int = 256  # codes per group


def optimised_codes(
    vectors: Float[np.ndarray, "N width"], known: Bool[np.ndarray, " N"], *, groups: int, centroids: int, seed: int
) -> Int[np.ndarray, "N groups"]:
    """Codes, 0…centroids − 1, of all items by optimised product quantisation (Ge et al. 2013).

    Alternates k-means in each group of rotated coordinates with the rotation that brings the vectors closest to their
    centroids (orthogonal Procrustes). known: the items that occur in training; only these are fitted.
    """
    centred = vectors.astype(np.float64) - vectors[known].mean(axis=0)
    centred = np.pad(centred, ((0, 0), (0, -centred.shape[1] % groups)))
    fitted, rotation = centred[known], np.eye(centred.shape[1])
    centroids = min(centroids, len(fitted))
    starts: list[str | np.ndarray] = ["random"] * groups
    for _ in range(ROUNDS):
        parts = np.split(fitted @ rotation, groups, axis=1)
        clusters = [_cluster(part, start, centroids, seed) for part, start in zip(parts, starts, strict=True)]
        starts = [c.cluster_centers_ for c in clusters]
        near = np.concatenate([c.cluster_centers_[c.labels_] for c in clusters], axis=1)
        rotation = orthogonal_procrustes(fitted, near)[0]
    parts = np.split(centred @ rotation, groups, axis=1)
    return np.stack([c.predict(part) for c, part in zip(clusters, parts, strict=True)], axis=1)


def _cluster(part: np.ndarray, start: str | np.ndarray, centroids: int, seed: int) -> KMeans:
    with warnings.catch_warnings():  # fewer distinct points than centroids: some codes stay unused
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(centroids, init=start, n_init=1, max_iter=20, random_state=seed).fit(part)


class VqRec(CosineSequenceModel):
    """SASRec's encoder over items that are the mean of their codes' embeddings, scored by cosine."""

    config: VqRecConfig
    codes: Tensor

    def __init__(self, config: VqRecConfig, codes: Int[np.ndarray, "N groups"]) -> None:
        super().__init__(config)
        rows = torch.from_numpy(codes).long() + torch.arange(config.groups) * config.centroids + 1
        self.register_buffer("codes", F.pad(rows, (0, 0, 1, 0)))  # item 0 is padding: row 0 in every group
        self.code_embedding = nn.Embedding(config.groups * config.centroids + 1, config.dim)
        initialise(self)

    def item_vectors(self, items: Int[Tensor, " n"]) -> Float[Tensor, "n D"]:
        """Mean of the codes' embeddings."""
        return F.embedding_bag(self.codes[items], self.code_embedding.weight, mode="mean")


def build(material: Material) -> VqRec:
    """An untrained VQ-Rec over the codes of the text vectors."""
    m = material
    config = VqRecConfig(
        items=m.items, dim=m.dim, layers=m.layers, heads=m.heads, dropout=m.dropout, max_length=m.max_length
    )
    known = np.bincount(m.values, minlength=m.items + 1)[1:] > 0
    codes = optimised_codes(m.vectors["text"], known, groups=config.groups, centroids=config.centroids, seed=m.seed)
    return VqRec(config, codes)


def restore(config: dict[str, Any]) -> VqRec:
    """A system of this configuration, to load saved weights and codes into."""
    c = VqRecConfig(**config)
    return VqRec(c, np.zeros((c.items, c.groups), dtype=np.int64))
