"""The recommendations for many users: the best items after each history, and popular items without one."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Protocol

import numpy as np
import polars as pl
import torch
from torch import Tensor

from stages.data.histories import Histories, history_batches
from stages.serving.requests import Requests
from stages.serving.trained import popular_items
from stages.training.ranking import SCORES_PER_BLOCK, RankingModel, ScoringModel
from stages.training.recommending import top_items

USERS_PER_BATCH = 384  # fewer batches cost less of Python; larger ones leave the cache


class RecommendingSystem(Protocol):
    """What recommendations are made with: `Trained` (SICSRec) or `OtherSystem`."""

    @property
    def model(self) -> RankingModel: ...

    @property
    def matrix(self) -> Tensor: ...

    @property
    def items(self) -> pl.DataFrame: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def max_length(self) -> int: ...

    @property
    def known_items(self) -> int: ...

    @property
    def files(self) -> tuple[Path, ...]: ...


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is recommended.

    top: at most so many items for each user. keep_viewed: items of the history too. popular: users without a history
    get the items with most training interactions, else nothing.
    """

    top: int
    keep_viewed: bool = False
    popular: bool = True


def recommend_items(trained: RecommendingSystem, requests: Requests, choice: Choice) -> pl.DataFrame:
    """The recommendations, in the order of the requests: user, item (raw ids), rank, score, basis.

    basis: `history`, or `popularity` for popular items, which have no score.
    """
    top = min(choice.top, trained.items.height)
    numbers, scores = rank_items(trained, requests, top=top, keep_viewed=choice.keep_viewed)
    shown = np.isfinite(scores)
    new = requests.histories.lengths == 0
    if choice.popular:
        numbers[new] = popular_items(trained.items)[:top]
        shown[new] = True
    rows, places = np.nonzero(shown)
    basis = pl.when(pl.Series(new).gather(rows)).then(pl.lit("popularity")).otherwise(pl.lit("history"))
    return pl.select(
        user=requests.users.gather(rows),
        item=trained.items["raw_id"].gather(numbers[shown] - 1),
        rank=pl.Series(places, dtype=pl.Int32) + 1,
        score=pl.Series(scores[shown]),
        basis=basis,
    ).with_columns(pl.when(pl.col("score").is_finite()).then("score"))


def rank_items(
    trained: RecommendingSystem, requests: Requests, *, top: int, keep_viewed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and scores of each user's best items, best first: (users, top) int32 and float32.

    A score of −inf: no further item may be recommended, or the user has no history.
    """
    model, device = trained.model, trained.device
    numbers = np.ones((len(requests.users), top), dtype=np.int32)
    scores = np.full(numbers.shape, -np.inf, dtype=np.float32)
    known = np.flatnonzero(requests.histories.lengths)
    if not len(known):
        return numbers, scores
    # users without items have no values either: without their offsets the histories of the others are packed as before
    histories = Histories(requests.histories.values, np.append(0, requests.histories.offsets[1:][known]))

    def rank_batch(users: np.ndarray, items: Tensor) -> None:
        left_out = None
        if not keep_viewed:
            rows, viewed = viewed_items(histories, users)  # also what max_length cuts off
            left_out = torch.from_numpy(rows).to(device), torch.from_numpy(viewed).to(device)
        best = top_items(model, trained.matrix, model.last_hidden(items.to(device)), left_out, top=top)
        numbers[known[users]], scores[known[users]] = (found.cpu().numpy() for found in best)

    size = USERS_PER_BATCH
    if isinstance(model, ScoringModel):  # it may need the scores of all items at once: top_items then has one block
        size = max(1, min(size, SCORES_PER_BLOCK // trained.items.height))
    batches = history_batches(histories, max_length=trained.max_length, batch_users=size)
    workers = torch.get_num_threads() if device.type == "cpu" else 1
    run_batches(rank_batch, batches, workers=min(workers, -(-len(known) // size)))
    return numbers, scores


def run_batches(
    rank_batch: Callable[[np.ndarray, Tensor], None], batches: Iterator[tuple[np.ndarray, Tensor]], *, workers: int
) -> None:
    """Call `rank_batch` for each batch, in `workers` threads that take the next batch when they are free.

    With several, each computes with one thread of torch: torch's own threads wait for each other after every operation
    of a batch, which costs more than half of the time when another program uses a core.
    """
    lock, stopped = Lock(), Event()

    @torch.inference_mode()
    def work() -> None:
        try:
            while not stopped.is_set():
                with lock:
                    batch = next(batches, None)
                if batch is None:
                    return
                rank_batch(*batch)
        except BaseException:
            stopped.set()
            raise

    if workers == 1:
        return work()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(workers) as pool:
            try:
                for done in [pool.submit(work) for _ in range(workers)]:
                    done.result()
            finally:  # Ctrl-C among others: the threads end after their batch
                stopped.set()
    finally:
        torch.set_num_threads(threads)
    return None


def viewed_items(histories: Histories, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every item of some users' histories, and the row of `users` whose it is: two arrays (interactions,) int64."""
    lengths = histories.lengths[users]
    rows = np.repeat(np.arange(len(users)), lengths)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # 0, 1, … of each history
    return rows, histories.values[histories.offsets[users][rows] + within]
