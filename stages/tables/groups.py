"""Where content helps: metrics by history length and by popularity of the test item, beside the ID encoder's."""

from typing import Any

import numpy as np

from stages.training.metrics import mean_metrics

LENGTHS = {"1-4": (1, 4), "5-9": (5, 9), "10-19": (10, 19), "20+": (20, None)}  # items known before the test item
HEAD = 0.2  # the share of items that counts as popular


def length_groups(lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Which users have histories of which length. lengths: (users,) → {name: (users,) bool}."""
    return {name: (lengths >= low) & (lengths <= (high or np.inf)) for name, (low, high) in LENGTHS.items()}


def popularity_groups(targets: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Which users' test item is among the most popular fifth, is seen less often, or never in training.

    targets: (users,) in 1…N; counts: (N,) training interactions of each item. → {name: (users,) bool}.
    """
    order = np.argsort(-counts, kind="stable")
    head = np.zeros(len(counts), dtype=bool)
    head[order[: round(HEAD * len(counts))]] = True
    unseen = counts == 0
    kinds = {"head": head & ~unseen, "tail": ~head & ~unseen, "unseen": unseen}
    return {name: items[targets - 1] for name, items in kinds.items()}


def metrics_by_group(groups: dict[str, np.ndarray], ranks: dict[str, np.ndarray]) -> dict[str, Any]:
    """Each group's size and each system's four metrics; empty groups are left out. ranks: {system: (users,)}."""
    return {
        name: {"users": int(members.sum()), **{system: mean_metrics(r[members]) for system, r in ranks.items()}}
        for name, members in groups.items()
        if members.any()
    }
