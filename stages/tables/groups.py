"""Metrics of groups of users: by history length, and by popularity and training count of the test item."""

from typing import Any

import numpy as np

from stages.training.metrics import mean_metrics

LENGTHS = {"1-4": (1, 4), "5-9": (5, 9), "10-19": (10, 19), "20+": (20, np.inf)}  # items before the test item
COUNTS = {"0": (0, 0), "1-4": (1, 4), "5-19": (5, 19), "20-99": (20, 99), "100+": (100, np.inf)}  # of the test item
HEAD = 0.2  # share of the items that counts as popular


def _within(numbers: np.ndarray, borders: dict[str, tuple[int, float]]) -> dict[str, np.ndarray]:
    return {name: (numbers >= low) & (numbers <= high) for name, (low, high) in borders.items()}


def length_groups(lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Users grouped by the length of their histories. lengths: (users,) → {group: (users,) bool}."""
    return _within(lengths, LENGTHS)


def count_groups(targets: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Users grouped by how often their test item occurs in training; arguments as for `popularity_groups`."""
    return _within(counts[targets - 1], COUNTS)


def metrics_by_count(ranks: np.ndarray, counts: np.ndarray) -> dict[str, dict[str, float]]:
    """Number of users and mean metrics by how often the test item occurs in training. ranks, counts: (users,)."""
    groups = {name: members for name, members in _within(counts, COUNTS).items() if members.any()}
    return {name: {"users": int(members.sum()), **mean_metrics(ranks[members])} for name, members in groups.items()}


def popularity_groups(targets: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Users grouped by their test item: in the most popular fifth (head), less popular (tail), or unseen in training.

    targets: (users,) in 1…N; counts: (N,) training interactions of each item. → {group: (users,) bool}.
    """
    order = np.argsort(-counts, kind="stable")
    head = np.zeros(len(counts), dtype=bool)
    head[order[: round(HEAD * len(counts))]] = True
    unseen = counts == 0
    kinds = {"head": head & ~unseen, "tail": ~head & ~unseen, "unseen": unseen}
    return {name: items[targets - 1] for name, items in kinds.items()}


def metrics_by_group(groups: dict[str, np.ndarray], ranks: dict[str, np.ndarray]) -> dict[str, Any]:
    """Number of users and mean metrics of each system in each group that is not empty. ranks: {system: (users,)}."""
    return {
        name: {"users": int(members.sum()), **{system: mean_metrics(r[members]) for system, r in ranks.items()}}
        for name, members in groups.items()
        if members.any()
    }


def metrics_by_groups(
    ranks: dict[str, np.ndarray], *, lengths: np.ndarray, targets: np.ndarray, counts: np.ndarray
) -> dict[str, Any]:
    """All groupings. ranks: {system: (users,)}; the rest as for `length_groups` and `popularity_groups`."""
    return {
        "history_length": metrics_by_group(length_groups(lengths), ranks),
        "target_popularity": metrics_by_group(popularity_groups(targets, counts), ranks),
        "target_training_count": metrics_by_group(count_groups(targets, counts), ranks),
    }
