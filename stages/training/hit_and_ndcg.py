"""hit@k and ndcg@k from ranks: what training validates by and the paper reports (section 4.1)."""

import numpy as np

CUTOFFS = (5, 10)


def hit(ranks: np.ndarray, k: int) -> np.ndarray:
    """1 where the relevant item is among the first k. ranks (users,), 1 = best → (users,) float64."""
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """Normalised discounted cumulative gain with one relevant item: 1 / log2(rank + 1) within the first k, else 0.

    ranks (users,), 1 = best → (users,) float64.
    """
    return np.where(ranks <= k, 1 / np.log2(ranks + 1), 0.0)


def hits_and_ndcgs(ranks: np.ndarray) -> dict[str, np.ndarray]:
    """Each user's hit@k and ndcg@k for k in CUTOFFS. ranks (users,), 1 = best → {name: (users,)}."""
    return {f"hit@{k}": hit(ranks, k) for k in CUTOFFS} | {f"ndcg@{k}": ndcg(ranks, k) for k in CUTOFFS}
