"""Interactions to numbered histories, the common part of the splits; and the tables that a split writes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from stages.data.ninerec import has_title
from stages.errors import InputError


@dataclass(frozen=True)
class Split:
    """The tables that the stage writes, and how much was dropped for each reason.

    items: item, raw_id, title_zh, title_en, cover, count (of training interactions); train and full: user, raw_id,
    items (a list, oldest first); valid and test: user, item. All numbers are int32. A split by time also has the
    column history in valid and test: the user's items before the target, oldest first.
    """

    items: pl.DataFrame
    train: pl.DataFrame
    valid: pl.DataFrame
    test: pl.DataFrame
    full: pl.DataFrame
    dropped: dict[str, int]


@dataclass(frozen=True)
class UserHistories:
    """items: as in Split, without count. full: as in Split; with the lists `times`, if they were asked for."""

    items: pl.DataFrame
    full: pl.DataFrame
    dropped: dict[str, int]


def user_histories(
    pairs: pl.LazyFrame,
    items: pl.DataFrame,
    covers: set[str],
    folder: Path,
    *,
    min_interactions: int,
    parts: int = 1,
    with_times: bool = False,
) -> UserHistories:
    """Each user's items, sorted by (timestamp, file row).

    pairs: raw_user, raw_item, timestamp; items: raw_id, title_zh, title_en; covers: raw ids of items with a cover.
    Dropped and counted: exact repeats of an interaction, interactions with items without any title (unless no item
    has one), users with fewer than `min_interactions`. Items are numbered from 1 in the order of their file, users from
    0 in the order of their first interaction. `folder` (empty) receives the interactions in `parts` files, each with
    all interactions of its users; memory holds one file and all histories. Raises InputError when no user is left.
    """
    _write_parts(pairs, items, folder, parts)
    finished = [_histories(part, min_interactions, with_times) for part in folder.iterdir()]
    dropped = {reason: sum(counts[reason] for _, counts in finished) for reason in finished[0][1]}
    histories = pl.concat([part for part, _ in finished]).sort("first_row")
    del finished
    if histories.is_empty():
        raise InputError(f"no user has {min_interactions} interactions with titled items: lower split.min_interactions")
    return UserHistories(*_number(items, histories, covers), dropped)


def with_counts(items: pl.DataFrame, train: pl.DataFrame) -> pl.DataFrame:
    """`items` with the column count: how often each item occurs in the histories of `train`."""
    counts = train.select(item=pl.col("items").explode()).group_by("item").agg(count=pl.len().cast(pl.Int32))
    counted = items.join(counts, on="item", how="left", maintain_order="left")
    return counted.with_columns(pl.col("count").fill_null(0))


def summarise(split: Split) -> dict[str, object]:
    """The dataset's numbers of the paper's Table 3, and the share of test items that training never shows."""
    users, items = split.full.height, split.items.height
    interactions = int(split.full["items"].list.len().sum())
    cold = split.items.filter(pl.col("count") == 0)["item"]
    return {
        "users": users,
        "items": items,
        "interactions": interactions,
        "sparsity": 1 - interactions / (users * items),
        "mean_length": interactions / users,
        "cold_test_targets": float(split.test["item"].is_in(cold.implode()).mean()),  # type: ignore[arg-type]
        "dropped": split.dropped,
    }


def _write_parts(pairs: pl.LazyFrame, items: pl.DataFrame, folder: Path, parts: int) -> None:
    """Stream the interactions into `parts` files by a hash of the user.

    Columns: row (of the file), raw_user, item (row of `items`, from 0), titled, timestamp.
    """
    titled = has_title("title_zh") | has_title("title_en")
    titled = titled | ~titled.any()
    places = items.lazy().select(raw_item="raw_id", titled=titled).with_row_index("item")
    events = pairs.with_row_index("row").join(places, on="raw_item", how="inner").drop("raw_item")
    by_user = pl.PartitionBy(folder, key={"part": pl.col("raw_user").hash() % parts}, include_key=False)
    events.sink_parquet(by_user, compression="lz4", engine="streaming")


def _histories(part: Path, min_interactions: int, with_times: bool) -> tuple[pl.DataFrame, dict[str, int]]:
    """Histories of one file (first_row, raw_id, items as rows of `items`), and the counts of what was dropped."""
    events = pl.read_parquet(part, hive_partitioning=False)
    once = events.group_by("raw_user", "item", "timestamp").agg(pl.col("row").min(), pl.col("titled").first())
    titled = once.filter("titled").sort("timestamp", "row")
    times = {"times": "timestamp"} if with_times else {}
    users = titled.group_by(raw_id="raw_user").agg(first_row=pl.col("row").min(), items="item", **times)
    long_enough = users.filter(pl.col("items").list.len() >= min_interactions)
    dropped = {
        "repeated_events": events.height - once.height,
        "untitled_interactions": once.height - titled.height,
        "short_users": once["raw_user"].n_unique() - long_enough.height,
        "short_user_interactions": titled.height - int(long_enough["items"].list.len().sum()),
    }
    return long_enough, dropped


def _number(items: pl.DataFrame, histories: pl.DataFrame, covers: set[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The items that occur in a history, numbered from 1, and the histories as lists of these numbers."""
    flat = histories["items"].explode().to_numpy()
    used = np.zeros(items.height, dtype=bool)
    used[flat] = True
    number = np.cumsum(used, dtype=np.int32)
    ends = histories["items"].list.len().to_numpy().cumsum(dtype=np.int64)
    lists = pa.LargeListArray.from_arrays(np.concatenate([[0], ends]), number[flat])
    user = pl.int_range(histories.height, dtype=pl.Int32, eager=True)
    full = histories.select(user=user, raw_id="raw_id", items=pl.Series(lists))
    full = full.hstack(histories.select("^times$"))
    has_cover = pl.col("raw_id").is_in(pl.Series(sorted(covers), dtype=pl.String).implode())
    return items.select(pl.Series("item", number), "raw_id", "title_zh", "title_en", cover=has_cover).filter(used), full
