"""The metrics that `evaluate` and `report` compute from stored ranks. A new metric is one line in `per_user_metrics`.

No training stage imports this file: a new metric is computed from the stored ranks, without training anything again.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from stages.training.hit_and_ndcg import hits_and_ndcgs


def per_user_metrics(ranks: Integer[np.ndarray, " users"]) -> dict[str, Float[np.ndarray, " users"]]:
    """Each user's metrics, by name, from the rank of the user's one relevant item. ranks: 1 = best."""
    return hits_and_ndcgs(ranks)


def mean_metrics(ranks: Integer[np.ndarray, " users"]) -> dict[str, float]:
    """Each metric's mean over users. ranks: 1 = best."""
    return {name: float(values.mean()) for name, values in per_user_metrics(ranks).items()}


def mean_metrics_by_protocol(
    kept: Integer[np.ndarray, " users"], filtered: Integer[np.ndarray, " users"]
) -> dict[str, Any]:
    """Each metric's mean over users with viewed items kept in the ranking, and under `filtered` without them."""
    return {**mean_metrics(kept), "filtered": mean_metrics(filtered)}
