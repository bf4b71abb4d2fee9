"""Histories after which two models recommend differently (Fig. 5)."""

import numpy as np

EACH_WAY = 3  # cases in which only the one model is right, and as many for the other
SHOWN = 5  # recommendations drawn for each model


def different_cases(ours: np.ndarray, theirs: np.ndarray, popularity: np.ndarray) -> np.ndarray:
    """Users whose test item only one model has in its top SHOWN: EACH_WAY for ours, then EACH_WAY for theirs.

    Sorted by the difference of the two ranks, largest first; equal ones by popularity of the test item.
    ours, theirs: (users,) ranks; popularity: (users,) of the test item. → indices of users.
    """
    chosen = []
    for hit, missed in ((ours, theirs), (theirs, ours)):
        users = np.flatnonzero((hit <= SHOWN) & (missed > SHOWN))
        order = np.lexsort((users, -popularity[users], hit[users] - missed[users]))
        chosen.append(users[order[:EACH_WAY]])
    return np.concatenate(chosen)
