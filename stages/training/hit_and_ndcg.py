"""hit@k and ndcg@k from ranks: the metrics of validation and of the paper (section 4.1)."""

import numpy as np
from jaxtyping import Float, Integer

CUTOFFS = (5, 10)


def hit(ranks: Integer[np.ndarray, " users"], k: int) -> Float[np.ndarray, " users"]:
    """1 where the relevant item is among the first k, else 0. ranks: 1 = best."""
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: Integer[np.ndarray, " users"], k: int) -> Float[np.ndarray, " users"]:
    """Normalised discounted cumulative gain of one relevant item: 1 / log2(rank + 1) among the first k, else 0.

    ranks: 1 = best.
    """
    return np.where(ranks <= k, 1 / np.log2(ranks + 1), 0.0)


def hits_and_ndcgs(ranks: Integer[np.ndarray, " users"]) -> dict[str, Float[np.ndarray, " users"]]:
    """Each user's hit@k and ndcg@k for k in CUTOFFS, by name. ranks: 1 = best."""
    return {f"hit@{k}": hit(ranks, k) for k in CUTOFFS} | {f"ndcg@{k}": ndcg(ranks, k) for k in CUTOFFS}
