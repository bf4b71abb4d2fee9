"""What an interaction costs in a long log beside a short one: it should not depend on the length."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from stages.bench.training import new_sasrec, seconds
from stages.data.histories import Batch, Histories, training_batches, training_windows
from stages.params import Params

ITEMS = 2000
BATCHES = 30  # trained of each log: all of the one with 40 thousand interactions
ROUNDS = 3


@dataclass(frozen=True)
class Epoch:
    """An epoch of a log, cut but not trained, and a sample of its batches.

    planning: seconds of its windows, their sorting and the cutting of every batch. targets: of the whole epoch.
    """

    interactions: int
    targets: int
    planning: float
    sample: list[Batch]

    def seconds_an_interaction(self, training: float) -> float:
        """What the whole epoch costs, when the sample takes `training` seconds."""
        sampled = sum(int((batch.targets > 0).sum()) for batch in self.sample)
        return (self.planning + training * self.targets / sampled) / self.interactions


def synthetic_histories(interactions: int, seed: int) -> Histories:
    """Histories of 3 to 9 items, about `interactions` in all."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 10, size=interactions // 6)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Histories(rng.integers(1, ITEMS + 1, size=offsets[-1]), offsets)


def planned_epoch(log: Histories, max_length: int, batch_positions: int, seed: int) -> Epoch:
    """Cut a whole epoch into batches, which come in random order, and keep every so-manieth of them."""
    begin = time.perf_counter()
    windows = training_windows(log, max_length)
    every = max(1, int(windows.targets.sum()) // batch_positions // BATCHES)
    batches = training_batches(log, windows, batch_positions, np.random.default_rng(seed))
    sample = [batch for number, batch in enumerate(batches) if number % every == 0]
    planning = time.perf_counter() - begin
    return Epoch(len(log.values), int(windows.targets.sum()), planning, sample[:BATCHES])


def growth(params: Params, small: int, large: int) -> dict[str, float]:
    """Microseconds an interaction of an epoch in logs of `small` and of `large` interactions.

    All of an epoch is cut into batches, BATCHES of them are trained, and their time is taken for every one: an epoch
    of 10 million interactions would train for minutes. The logs take turns, so that what else the machine does meets
    both.
    """
    p, length, model = params.pretrain, params.sequence.max_length, new_sasrec(params, ITEMS)
    optimizer = torch.optim.Adam(model.parameters(), lr=p.learning_rate, fused=True)
    model.train()

    def step(batch: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        model.loss(*batch)["loss"].backward()
        optimizer.step()

    epochs = [
        planned_epoch(synthetic_histories(size, params.seed), length, p.batch_positions, params.seed)
        for size in (small, large)
    ]
    for epoch in epochs:  # the first step is slower
        step(epoch.sample[0])
    training = [0.0, 0.0]
    for _ in range(ROUNDS):
        for turn in zip(*(epoch.sample for epoch in epochs), strict=True):
            for number, batch in enumerate(turn):
                training[number] += seconds(lambda b=batch: step(b)) / ROUNDS
    costs = [epoch.seconds_an_interaction(t) * 1e6 for epoch, t in zip(epochs, training, strict=True)]
    return {"growth_small_microseconds": costs[0], "growth_large_microseconds": costs[1]}
