"""The metrics that `evaluate` and `report` compute from stored ranks. A new metric is one line in `per_user_metrics`.

No training stage imports this file: a new metric is computed from the stored ranks, without training anything again.
"""

import numpy as np
from jaxtyping import Float, Integer

from stages.training.hit_and_ndcg import hits_and_ndcgs


def per_user_metrics(ranks: Integer[np.ndarray, " users"]) -> dict[str, Float[np.ndarray, " users"]]:
    """Each user's metrics, by name, from the rank of the user's one relevant item. ranks: 1 = best."""
    return hits_and_ndcgs(ranks)


def mean_metrics(ranks: Integer[np.ndarray, " users"]) -> dict[str, float]:
    """Each metric's mean over users. ranks: 1 = best."""
    return {name: float(values.mean()) for name, values in per_user_metrics(ranks).items()}
