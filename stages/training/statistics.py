"""Confidence intervals of metrics, and significance tests between systems, over users."""

import numpy as np
from jaxtyping import Float
from scipy.stats import bootstrap, permutation_test

RESAMPLES_PER_BLOCK = 100  # bounds memory; the result is the same


def interval(values: Float[np.ndarray, " users"], *, resamples: int, seed: int) -> list[float]:
    """95 % percentile bootstrap interval of the mean over users. → [low, high]."""
    if values.min() == values.max():  # every resample has the same mean
        return [float(values[0]), float(values[0])]
    result = bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=RESAMPLES_PER_BLOCK,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]


def paired_p_value(
    left: Float[np.ndarray, " users"], right: Float[np.ndarray, " users"], *, resamples: int, seed: int
) -> float:
    """p-value of a two-sided paired randomisation test: the signs of users' differences are drawn at random.

    The null hypothesis is that both systems have the same mean over the same users; one user alone cannot reject it.
    Source: Smucker et al. 2007.
    """
    difference = left - right
    if len(difference) == 1 or not difference.any():
        return 1.0
    result = permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=resamples, batch=RESAMPLES_PER_BLOCK,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(result.pvalue)


def holm(p_values: list[float]) -> list[float]:
    """p-values adjusted for multiple tests (Holm 1979), in the given order."""
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.minimum(1, np.maximum.accumulate(np.asarray(p_values)[order] * factors))
    result = np.empty(len(p_values))
    result[order] = corrected
    return [float(value) for value in result]
