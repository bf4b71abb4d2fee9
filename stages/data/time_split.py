"""The global time split: training ends at one moment for all users, validation at a later one; the rest is the test."""

import math
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from stages.data.user_histories import Split, user_histories, with_counts
from stages.errors import InputError

# (below, units a second) for times after 1973
UNITS = ((10**11, 1), (10**14, 10**3), (10**17, 10**6), (float("inf"), 10**9))


def split_by_time(
    pairs: pl.LazyFrame,
    items: pl.DataFrame,
    covers: set[str],
    folder: Path,
    *,
    min_interactions: int,
    valid_from: int,
    test_from: int,
    parts: int = 1,
) -> Split:
    """Train on what is before `valid_from`; a user's first item from then on is the target, as from `test_from` on.

    valid_from, test_from: timestamps, in the unit of `pairs`. A user has at most one target in each period, and all
    own items before it as history: nothing that came later, of any user, is known to what recommends. Users with fewer
    than `min_interactions` before `valid_from` are not trained on; a target counts if that many interactions end with
    it. The other arguments are those of `user_histories`. Raises InputError when a period has no user.
    Source: Gusak et al. 2025 (Time to Split), global temporal split with the first target.
    """
    found = user_histories(
        pairs, items, covers, folder, min_interactions=min_interactions, parts=parts, with_times=True
    )
    full = found.full.with_columns(
        train_end=_earlier(valid_from), valid_end=_earlier(test_from), end=pl.col("items").list.len()
    )
    train = full.filter(pl.col("train_end") >= min_interactions)
    train = train.select("user", "raw_id", pl.col("items").list.head("train_end"))
    valid, test = (
        full.filter((pl.col(begin) < pl.col(end)) & (pl.col(begin) >= min_interactions - 1)).select(
            "user", item=pl.col("items").list.get(pl.col(begin)), history=pl.col("items").list.head(begin)
        )
        for begin, end in (("train_end", "valid_end"), ("valid_end", "end"))
    )
    for frame, period in ((train, "before split.valid_from"), (valid, "up to split.test_from"), (test, "in the end")):
        if frame.is_empty():
            raise InputError(
                f"no user has {min_interactions} interactions with titled items {period}: set split.valid_from and "
                "split.test_from to other moments, or lower split.min_interactions"
            )
    full = full.select("user", "raw_id", "items")
    return Split(with_counts(found.items, train), train, valid, test, full, found.dropped)


def _earlier(moment: int) -> pl.Expr:
    """How many of the user's timestamps are before `moment`."""
    return pl.col("times").list.eval(pl.element() < moment).list.sum()


def find_moments(pairs: pl.LazyFrame, valid_from: str, test_from: str) -> tuple[int, int]:
    """The two moments as timestamps of `pairs`.

    A fraction is a quantile of all interactions. A whole number is a timestamp. A date (UTC if it has no offset) is
    converted to the unit of the timestamps, seconds, milliseconds, microseconds or nanoseconds by their size. Raises
    InputError when a moment is none of these, or the second is not after the first.
    """
    latest = int(pairs.select(pl.col("timestamp").max()).collect(engine="streaming").item())
    moments = [
        _moment(pairs, text, f"split.{name}", latest)
        for name, text in (("valid_from", valid_from), ("test_from", test_from))
    ]
    if not moments[0] < moments[1] <= latest:
        raise InputError(
            f"split.valid_from={valid_from} is timestamp {moments[0]}, split.test_from={test_from} is {moments[1]}, "
            f"the last interaction's is {latest}: they must come in this order"
        )
    return moments[0], moments[1]


def _moment(pairs: pl.LazyFrame, text: str, param: str, latest: int) -> int:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        if 0 < number < 1:
            quantile = pl.col("timestamp").quantile(number, interpolation="higher")
            return int(pairs.select(quantile).collect(engine="streaming").item())
        if math.isfinite(number):
            return int(number)
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{param}={text}: write a fraction such as 0.9, a date such as 2024-12-31, or a timestamp"
        ) from None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return int(date.timestamp() * next(unit for below, unit in UNITS if latest < below))
