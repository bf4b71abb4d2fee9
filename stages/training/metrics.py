"""The metrics that `evaluate` and `report` compute from stored ranks. A new one is a line in `per_user_metrics`.

No training stage imports this file: a metric that is added here is computed from the ranks at hand, nothing is trained.
"""

import numpy as np

from stages.training.hit_and_ndcg import hits_and_ndcgs


def per_user_metrics(ranks: np.ndarray) -> dict[str, np.ndarray]:
    """Each user's metrics from the rank of its one relevant item. ranks (users,), 1 = best → {name: (users,)}."""
    return hits_and_ndcgs(ranks)


def mean_metrics(ranks: np.ndarray) -> dict[str, float]:
    """Means over users of every metric. ranks (users,), 1 = best."""
    return {name: float(values.mean()) for name, values in per_user_metrics(ranks).items()}
