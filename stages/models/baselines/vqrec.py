"""VQ-Rec (Hou et al. 2023), trained from scratch on one dataset: text becomes discrete codes, codes have embeddings."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import orthogonal_procrustes
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from stages.models.baselines.cosine import CosineSequenceModel
from stages.models.baselines.material import Material
from stages.models.layers import initialise

ROUNDS = 5  # of rotation and clustering; the error changes little after


@dataclass(frozen=True, kw_only=True)
class VqRecConfig:
    items: int  # N
    dim: int  # D
    layers: int
    heads: int
    max_length: int
    groups: int = 32  # sub-vectors, each with a code
    centroids: int = 256  # codes a group
    dropout: float = 0.5
    tau: float = 0.07


def optimised_codes(vectors: np.ndarray, known: np.ndarray, *, groups: int, centroids: int, seed: int) -> np.ndarray:
    """Optimised product quantisation (Ge et al. 2013): codes of all items, fitted on those that training knows.

    vectors: (N, width), known: (N,) bool. Alternates k-means in each group of rotated coordinates with the rotation
    that brings the vectors closest to their centroids (orthogonal Procrustes). → (N, groups) in 0…centroids − 1.
    """
    centred = vectors.astype(np.float64) - vectors[known].mean(axis=0)
    centred = np.pad(centred, ((0, 0), (0, -centred.shape[1] % groups)))
    fitted, rotation = centred[known], np.eye(centred.shape[1])
    centroids = min(centroids, len(fitted))
    clusters: list[KMeans | None] = [None] * groups
    for _ in range(ROUNDS):
        parts = np.split(fitted @ rotation, groups, axis=1)
        clusters = [_cluster(part, centroids, seed, before) for part, before in zip(parts, clusters, strict=True)]
        near = np.concatenate([c.cluster_centers_[c.labels_] for c in clusters], axis=1)
        rotation = orthogonal_procrustes(fitted, near)[0]
    parts = np.split(centred @ rotation, groups, axis=1)
    return np.stack([c.predict(part) for c, part in zip(clusters, parts, strict=True)], axis=1)


def _cluster(part: np.ndarray, centroids: int, seed: int, before: KMeans | None) -> KMeans:
    start = "random" if before is None else before.cluster_centers_
    with warnings.catch_warnings():  # fewer distinct points than centroids: some codes stay unused
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(centroids, init=start, n_init=1, max_iter=20, random_state=seed).fit(part)


class VqRec(CosineSequenceModel):
    """SASRec's encoder over items that are the mean of their codes' embeddings, scored by cosine."""

    config: VqRecConfig

    def __init__(self, config: VqRecConfig, codes: np.ndarray) -> None:
        """codes: (N, groups)."""
        super().__init__(config)
        rows = torch.from_numpy(codes).long() + torch.arange(config.groups) * config.centroids + 1
        self.register_buffer("codes", F.pad(rows, (0, 0, 1, 0)))  # item 0 is padding: row 0 in every group
        self.code_embedding = nn.Embedding(config.groups * config.centroids + 1, config.dim)
        initialise(self)

    def item_vectors(self, items: Tensor) -> Tensor:
        """Mean of the codes' embeddings. items: (n,) → (n, D)."""
        return F.embedding_bag(self.codes[items], self.code_embedding.weight, mode="mean")


def build(material: Material) -> VqRec:
    """An untrained VQ-Rec over the codes of the text vectors."""
    m = material
    config = VqRecConfig(items=m.items, dim=m.dim, layers=m.layers, heads=m.heads, max_length=m.max_length)
    known = np.bincount(m.values, minlength=m.items + 1)[1:] > 0
    codes = optimised_codes(m.vectors["text"], known, groups=config.groups, centroids=config.centroids, seed=m.seed)
    return VqRec(config, codes)
