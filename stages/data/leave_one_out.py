"""The leave-one-out split: each user's last item is the test target, the one before it the validation target."""

from pathlib import Path

import polars as pl

from stages.data.user_histories import Split, user_histories, with_counts


def split_leave_one_out(
    pairs: pl.LazyFrame, items: pl.DataFrame, covers: set[str], folder: Path, *, min_interactions: int, parts: int = 1
) -> Split:
    """Split each history, sorted by (timestamp, file row): last item for the test, the one before for validation.

    The arguments are those of `user_histories`, which also says what is dropped.
    """
    found = user_histories(pairs, items, covers, folder, min_interactions=min_interactions, parts=parts)
    full = found.full
    train = full.with_columns(pl.col("items").list.head(pl.col("items").list.len() - 2))
    valid, test = (full.select("user", item=pl.col("items").list.get(-n)) for n in (2, 1))
    return Split(with_counts(found.items, train), train, valid, test, full, found.dropped)
