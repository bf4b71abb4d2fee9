"""All users' histories in one array, and the batches of padded windows that training and ranking read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from stages.parallel.placement import choose_placement

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Histories:
    """All users' items in one array: user u's are `values[offsets[u]:offsets[u + 1]]`, oldest first.

    values: (interactions,) int64 in 1…N. offsets: (users + 1,) int64.
    """

    values: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """How many items each history has: (users,) int64."""
        return np.diff(self.offsets)

    def counts(self, items: int) -> np.ndarray:
        """How often each item occurs: (items,) int64, row i − 1 for item i."""
        return np.bincount(self.values, minlength=items + 1)[1:]

    @staticmethod
    def from_frame(frame: pl.DataFrame) -> "Histories":
        """Pack the `items` lists of `train.parquet` or `full.parquet`."""
        lengths = frame["items"].list.len().to_numpy()
        values = frame["items"].explode(empty_as_null=False).to_numpy().astype(np.int64)
        return Histories(values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    @staticmethod
    def before(targets: pl.DataFrame, otherwise: "Callable[[], Histories]") -> "Histories":
        """What precedes each row of `valid.parquet` or `test.parquet`: its `history`, which a split by time writes.

        otherwise: makes the histories of a leave-one-out split, one for each row of `targets`.
        """
        if "history" in targets.columns:
            return Histories.from_frame(targets.select(items="history"))
        return otherwise()

    @staticmethod
    def with_validation(train: pl.DataFrame, valid: pl.DataFrame, test: pl.DataFrame) -> "Histories":
        """Training histories with the validation items. train, valid, test: the tables of a split.

        Of a split by time: what precedes a user's test item; without one, the validation item and what precedes it;
        without either, the training history.
        """
        if "history" not in test.columns:
            return Histories.from_frame(train).extended(valid["item"].to_numpy())
        with_target = pl.concat_list("history", "item")
        frames = [test.select("user", items="history"), valid.select("user", items=with_target), train]
        known = pl.concat([frame.select("user", "items") for frame in frames])
        return Histories.from_frame(known.unique("user", keep="first", maintain_order=True).sort("user"))

    def extended(self, items: np.ndarray) -> "Histories":
        """Histories with one item appended to each. items: (users,), one for each user."""
        ends = self.offsets[1:]
        return Histories(np.insert(self.values, ends, items), self.offsets + np.arange(len(self.offsets)))

    def part(self, begin: int, end: int) -> "Histories":
        """The histories of rows begin to end − 1, without a copy."""
        offsets = self.offsets[begin : end + 1]
        return Histories(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])


class Batch(NamedTuple):
    """Right-padded inputs and the next item of each position.

    items: (B, L) int64, 0 is padding. targets: (B, L) int64, 0 where there is nothing to predict.
    """

    items: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Windows:
    """Spans of the packed values: the inputs of a window are `values[start:end]`, at most `max_length` of them.

    first: the first position of the window that has a target (earlier positions are context only); user: the row of
    the history. All four: (windows,) int64. Over all windows, every item that follows another is a target once.
    """

    start: np.ndarray
    end: np.ndarray
    first: np.ndarray
    user: np.ndarray

    @property
    def targets(self) -> np.ndarray:
        """How many targets each window has: (windows,) int64."""
        return self.end - self.start - self.first


def training_windows(histories: Histories, max_length: int) -> Windows:
    """Cut each history of n items into windows whose targets are its items 2…n, each exactly once.

    A history of up to max_length + 1 items is one window. A longer one is cut into windows that overlap by half, so
    that each target has at least max_length / 2 items before it in its window.
    """
    step = max(1, max_length // 2)
    targets = np.maximum(histories.lengths - 1, 0)
    count = (targets > 0) + np.maximum(-(-(targets - max_length) // step), 0)  # windows of each history
    user = np.repeat(np.arange(len(count)), count)
    number = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)  # 0, 1, … within a history
    begin = histories.offsets[:-1][user]
    reach = begin + max_length + number * step
    end = np.minimum(reach, begin + targets[user])
    start = np.maximum(begin, end - max_length)
    return Windows(start, end, np.where(number > 0, reach - step - start, 0), user)


def prefix_windows(histories: Histories, max_length: int) -> Windows:
    """One window for each target: the `max_length` items before it. For models whose attention is not causal."""
    lengths = histories.lengths
    user = np.repeat(np.arange(len(lengths)), np.maximum(lengths - 1, 0))
    begin = histories.offsets[:-1][user]
    end = np.flatnonzero(np.isin(np.arange(len(histories.values)), histories.offsets[:-1], invert=True))
    start = np.maximum(begin, end - max_length)
    return Windows(start, end, end - start - 1, user)


def training_batches(
    histories: Histories, windows: Windows, batch_positions: int, rng: np.random.Generator, device: torch.device = CPU
) -> Iterator[Batch]:
    """One epoch: batches of about `batch_positions` targets, from windows of similar length, in random order.

    The size of a batch is counted in targets, not users: with a fixed number of users, targets of short histories
    would weigh more than in the paper's batches of 1,024 (prefix, next item) instances.
    If GPU memory has room for the histories, they are copied there once an epoch and the batches are cut there.
    """
    for items, targets, _ in training_batches_with_users(histories, windows, batch_positions, rng, device):
        yield Batch(items, targets)


def training_batches_with_users(
    histories: Histories, windows: Windows, batch_positions: int, rng: np.random.Generator, device: torch.device = CPU
) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
    """The same batches, each with the users of its windows: items (B, L), targets (B, L), users (B,) on the CPU."""
    groups = _window_groups(windows, batch_positions, rng)
    spans = np.stack([windows.start, windows.end, windows.first])[:, np.concatenate(groups)]
    device = choose_placement(histories.values.nbytes + spans.nbytes, device)
    values, parts = torch.from_numpy(histories.values).to(device), torch.from_numpy(spans).to(device)
    lengths = windows.end - windows.start
    for group, part in zip(groups, parts.split([len(group) for group in groups], dim=1), strict=True):
        start, end, first = part
        yield *_cut_batch(values, start, end, first, width=int(lengths[group].max())), windows.user[group]


def _window_groups(windows: Windows, batch_positions: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The windows of each batch of an epoch: shuffled, sorted by length, cut by number of targets, shuffled again."""
    order = rng.permutation(len(windows.start))
    order = order[np.argsort((windows.end - windows.start)[order], kind="stable")]
    cumulative = np.cumsum(windows.targets[order])
    cuts = np.flatnonzero(np.diff((cumulative - 1) // batch_positions)) + 1
    groups = np.split(order, cuts)
    return [groups[number] for number in rng.permutation(len(groups))]


def _cut_batch(values: Tensor, start: Tensor, end: Tensor, first: Tensor, width: int) -> Batch:
    """A batch of windows. width: length of the longest, passed because a GPU's `max()` would be waited for."""
    index = start[:, None] + torch.arange(width, device=values.device)
    inside, last = index < end[:, None], len(values) - 1
    wanted = inside & (index >= (start + first)[:, None])
    items, following = values[index.clamp(max=last)], values[(index + 1).clamp(max=last)]
    return Batch(torch.where(inside, items, 0), torch.where(wanted, following, 0))


def history_batches(histories: Histories, *, max_length: int, batch_users: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Every user's latest `max_length` items, in batches of users of similar length: (users (B,), items (B, L))."""
    order = np.argsort(np.minimum(histories.lengths, max_length), kind="stable")
    for begin in range(0, len(order), batch_users):
        users = order[begin : begin + batch_users]
        yield users, torch.from_numpy(padded_histories(histories, users, max_length))


def padded_histories(histories: Histories, users: np.ndarray, max_length: int | None = None) -> np.ndarray:
    """Histories of some users, whole or cut to the latest `max_length` items, right-padded with 0: (B, L) int64.

    users: (B,), rows of the histories.
    """
    start, end = histories.offsets[users], histories.offsets[users + 1]
    if max_length:
        start = np.maximum(start, end - max_length)
    index = start[:, None] + np.arange(int((end - start).max()))
    return np.where(index < end[:, None], histories.values[np.minimum(index, len(histories.values) - 1)], 0)
