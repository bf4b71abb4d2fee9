"""The leave-one-out split: each user's last item is the test target, the one before it the validation target."""

from dataclasses import dataclass

import polars as pl

from stages.errors import InputError


@dataclass(frozen=True)
class Split:
    """What the stage writes.

    items: item, raw_id, title_zh, title_en, cover, count (of training interactions); train and full: user, raw_id,
    items; valid and test: user, item. All numbers are int32.
    """

    items: pl.DataFrame
    train: pl.DataFrame
    valid: pl.DataFrame
    test: pl.DataFrame
    full: pl.DataFrame
    dropped: dict[str, int]


def split_leave_one_out(pairs: pl.DataFrame, items: pl.DataFrame, covers: set[str], min_interactions: int) -> Split:
    """Cut histories, ordered by (timestamp, file row), into training, validation and test parts.

    pairs: raw_user, raw_item, timestamp; items: raw_id, title_zh, title_en. Dropped, and counted: exact repeats of an
    event, interactions with items without any title, users with fewer than `min_interactions`. Items are numbered
    from 1 in their file's order, users from 0 in order of first appearance in theirs.
    Raises InputError when nothing is left.
    """
    kept, dropped = _filter(pairs, items, min_interactions)
    if kept.is_empty():
        raise InputError(f"no user has {min_interactions} interactions with titled items: lower split.min_interactions")
    numbered = _number_items(items, kept, covers)
    events = _number_events(kept, numbered)
    full = events.group_by("user", maintain_order=True).agg(pl.col("raw_user").first().alias("raw_id"), items="item")
    train = full.with_columns(pl.col("items").list.head(pl.col("items").list.len() - 2))
    counts = train.select(item=pl.col("items").explode()).group_by("item").agg(count=pl.len().cast(pl.Int32))
    numbered = numbered.join(counts, on="item", how="left", maintain_order="left").with_columns(
        pl.col("count").fill_null(0)
    )
    return Split(numbered, train, _nth_last(full, 2), _nth_last(full, 1), full, dropped)


def summarise(split: Split) -> dict[str, object]:
    """The dataset's numbers as in the paper's Table 3, and how much of the test no ID model can know."""
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


def _filter(pairs: pl.DataFrame, items: pl.DataFrame, min_interactions: int) -> tuple[pl.DataFrame, dict[str, int]]:
    """The events that stay, in file order, and the number of those that do not, by reason."""
    once = pairs.unique(["raw_user", "raw_item", "timestamp"], keep="first", maintain_order=True)
    untitled = items.filter((pl.col("title_zh").str.strip_chars() == "") & (pl.col("title_en").str.strip_chars() == ""))
    titled = once.filter(~pl.col("raw_item").is_in(untitled["raw_id"].implode()))
    kept = titled.filter(pl.len().over("raw_user") >= min_interactions)
    dropped = {
        "repeated_events": pairs.height - once.height,
        "untitled_interactions": once.height - titled.height,
        "short_users": once["raw_user"].n_unique() - kept["raw_user"].n_unique(),
        "short_user_interactions": titled.height - kept.height,
    }
    return kept, dropped


def _number_items(items: pl.DataFrame, kept: pl.DataFrame, covers: set[str]) -> pl.DataFrame:
    used = items.filter(pl.col("raw_id").is_in(kept["raw_item"].unique().implode()))
    has_cover = pl.col("raw_id").is_in(pl.Series(sorted(covers), dtype=pl.String).implode())
    return used.with_row_index("item", offset=1).select(
        pl.col("item").cast(pl.Int32), "raw_id", "title_zh", "title_en", cover=has_cover
    )


def _number_events(kept: pl.DataFrame, numbered: pl.DataFrame) -> pl.DataFrame:
    """user int32, item int32, raw_user, each user's events in (timestamp, file row) order."""
    users = kept.select(pl.col("raw_user").unique(maintain_order=True)).with_row_index("user")
    return (
        kept.with_row_index("row")
        .join(users.with_columns(pl.col("user").cast(pl.Int32)), on="raw_user")
        .join(numbered.select("item", raw_item="raw_id"), on="raw_item")
        .sort("user", "timestamp", "row")
        .select("user", "raw_user", "item")
    )


def _nth_last(full: pl.DataFrame, n: int) -> pl.DataFrame:
    return full.select("user", item=pl.col("items").list.get(-n))
