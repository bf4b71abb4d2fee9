"""How far the metrics would move with other users."""

import numpy as np
from scipy.stats import bootstrap


def interval(values: np.ndarray, resamples: int, seed: int) -> list[float]:
    """95 % percentile bootstrap interval of the mean over users. values (users,) → [low, high]."""
    if values.min() == values.max():  # every resample has the same mean
        return [float(values[0]), float(values[0])]
    result = bootstrap(
        (values,), np.mean, n_resamples=resamples, batch=100, method="percentile", rng=np.random.default_rng(seed)
    )
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]
