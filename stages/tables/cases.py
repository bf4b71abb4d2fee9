"""Histories after which two models recommend differently (Fig. 5)."""

import numpy as np

EACH_WAY = 3  # cases that the one gets right and the other does not
SHOWN = 5  # recommendations of each model


def different_cases(ours: np.ndarray, theirs: np.ndarray, popularity: np.ndarray) -> np.ndarray:
    """Users whose item is among the first SHOWN of one model only: EACH_WAY of ours, then EACH_WAY of theirs.

    Of those the ones furthest apart, then the ones with the more popular item, which a reader may know.
    ours, theirs: (users,) ranks; popularity: (users,) of the test item. → indices of users.
    """
    chosen = []
    for hit, missed in ((ours, theirs), (theirs, ours)):
        users = np.flatnonzero((hit <= SHOWN) & (missed > SHOWN))
        order = np.lexsort((users, -popularity[users], hit[users] - missed[users]))
        chosen.append(users[order[:EACH_WAY]])
    return np.concatenate(chosen)
