"""Training time per interaction in a short and in a long log: it should not depend on the length of the log."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from stages.bench.training import new_sasrec, seconds
from stages.data.histories import Batch, Histories, training_batches, training_windows
from stages.models.sasrec import Sasrec
from stages.params import Params

ITEMS = 2000
MEAN_LENGTH = 6
BATCHES = 30  # trained per log; a log of 40 thousand interactions has no more
ROUNDS = 3


@dataclass(frozen=True)
class SampledEpoch:
    """All batches of an epoch were built, and a sample of them is stored for training.

    targets: number in the whole epoch; batching_seconds: time to build all batches of the epoch.
    """

    interactions: int
    targets: int
    batching_seconds: float
    sample: list[Batch]

    def seconds_per_interaction(self, training_seconds: float) -> float:
        """Time of the whole epoch per interaction, extrapolated from the `training_seconds` of the sample."""
        sampled = sum(int((batch.targets > 0).sum()) for batch in self.sample)
        return (self.batching_seconds + training_seconds * self.targets / sampled) / self.interactions


def synthetic_histories(
    interactions: int, seed: int, *, items: int = ITEMS, mean_length: int = MEAN_LENGTH
) -> Histories:
    """Random histories of half to one and a half times the mean length, with about `interactions` items in total."""
    rng, half = np.random.default_rng(seed), mean_length // 2
    lengths = rng.integers(half, mean_length + half + 1, size=interactions // mean_length)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Histories(rng.integers(1, items + 1, size=offsets[-1]), offsets)


def sample_epoch(
    log: Histories, *, max_length: int, batch_positions: int, seed: int, count: int = BATCHES
) -> SampledEpoch:
    """Build all batches of an epoch, in random order as in training, and store `count` of them at equal distances."""
    begin = time.perf_counter()
    windows = training_windows(log, max_length)
    every = max(1, int(windows.targets.sum()) // batch_positions // count)
    batches = training_batches(log, windows, batch_positions, np.random.default_rng(seed))
    sample = [batch for number, batch in enumerate(batches) if number % every == 0]
    batching_seconds = time.perf_counter() - begin
    return SampledEpoch(len(log.values), int(windows.targets.sum()), batching_seconds, sample[:count])


def training_step(model: Sasrec, learning_rate: float) -> Callable[[Batch], None]:
    """A function that trains the model on one batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    model.train()

    def step(batch: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        model.loss(*batch)["loss"].backward()
        optimizer.step()

    return step


def growth(params: Params, *, small: int, large: int) -> dict[str, float]:
    """Microseconds per interaction of an epoch, for a log of `small` and one of `large` interactions.

    Only BATCHES batches of each are trained and the rest is extrapolated: an epoch of 10 million interactions would
    take minutes. Batches of the two logs alternate, so that other load on the machine affects both.
    """
    p, length = params.pretrain, params.sequence.max_length
    step = training_step(new_sasrec(params, ITEMS), p.learning_rate)
    epochs = [
        sample_epoch(
            synthetic_histories(size, params.seed),
            max_length=length,
            batch_positions=p.batch_positions,
            seed=params.seed,
        )  # fmt: skip
        for size in (small, large)
    ]
    for epoch in epochs:  # warm-up: the first step is slower
        step(epoch.sample[0])
    training = [0.0, 0.0]
    for _ in range(ROUNDS):
        for turn in zip(*(epoch.sample for epoch in epochs), strict=True):
            for number, batch in enumerate(turn):
                training[number] += seconds(partial(step, batch)) / ROUNDS
    costs = [epoch.seconds_per_interaction(t) * 1e6 for epoch, t in zip(epochs, training, strict=True)]
    return {"growth_small_microseconds": costs[0], "growth_large_microseconds": costs[1]}
