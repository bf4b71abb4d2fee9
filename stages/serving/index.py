"""An approximate index of the item vectors (HNSW, by usearch), for catalogues too large to score whole."""

from pathlib import Path

import numpy as np
from usearch.index import Index

INDEX = "items.usearch"


def build_index(path: Path, vectors: np.ndarray) -> None:
    """Write the index. vectors: (N, D) float32, compared by dot product; the key of a row is its item number.

    By one thread: several insert in another order each time, so that the same vectors give different files, of which
    some find fewer of the best items.
    """
    index = Index(ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=16, expansion_add=128)
    index.add(np.arange(1, len(vectors) + 1), vectors, threads=1)
    index.save(str(path))


def load_index(path: Path, dim: int, *, top: int) -> Index:
    """An index that was written, which searches accurately enough for `top` items. dim: D of its vectors."""
    index = Index(ndim=dim, metric="ip", dtype="f32", expansion_search=max(256, top))
    index.load(str(path))
    return index


def recall(path: Path, vectors: np.ndarray, states: np.ndarray, *, top: int) -> float:
    """Share of the `top` items by exact scores that the index finds, mean over states (B, D)."""
    exact = np.argpartition(-(states @ vectors.T), top - 1, axis=1)[:, :top] + 1
    found = load_index(path, vectors.shape[1], top=top).search(states, top).keys.reshape(len(states), -1)
    return float(np.mean([len(np.intersect1d(a, b)) / top for a, b in zip(exact, found, strict=True)]))
