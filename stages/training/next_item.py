"""Training on next-item prediction: the one call by which `pretrain`, `posttrain` and the baselines train."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from stages.data.histories import Histories, training_batches, training_windows
from stages.files import read_parquet
from stages.models.softmax import Sampler, negative_sampler
from stages.parallel.distributed import BatchParts, shard_batches
from stages.params import Schedule
from stages.training.checkpoints import state_path
from stages.training.fit import Outcome, Plan, fit
from stages.training.hit_and_ndcg import hits_and_ndcgs
from stages.training.ranking import RankingModel, rank_users

MONITOR = "ndcg@10"  # the validation metric that stops training and picks the epoch


@runtime_checkable
class SequenceModel(Protocol):
    """What training and ranking call: every system of Table 4 that is trained has these.

    Besides, an `nn.Module`. A model whose scores are not dot products also has `scores(hidden, item_matrix)`; one that
    prepares something at the start of an epoch has `start_epoch(seed)`.
    """

    sampler: Sampler | None  # of negatives; None: the softmax is over all items

    def loss(self, *batch: Any) -> dict[str, Tensor]:
        """The loss under `loss`, and its terms, of a batch."""

    def last_hidden(self, items: Tensor) -> Tensor:
        """State after each row's last item. items: (B, L), 0 = padding at the right → (B, D)."""

    def item_matrix(self) -> Tensor:
        """What states are ranked by, row i − 1 is item i. → (N, D)."""


@dataclass(frozen=True)
class TrainingData:
    """What models learn from, and what they are validated on; never the test items."""

    histories: Histories  # of training interactions
    valid: np.ndarray  # (users,) validation item of each user
    items: int  # N
    files: tuple[Path, ...]  # that all this was read from

    @staticmethod
    def read(split: Path) -> "TrainingData":
        """Read what the split stage wrote."""
        files = tuple(split / f"{name}.parquet" for name in ("train", "valid", "items"))
        train, valid, items = (read_parquet(file) for file in files)
        return TrainingData(Histories.from_frame(train), valid["item"].to_numpy(), len(items), files[:2])


def validation_metrics(
    model: RankingModel, histories: Histories, valid: np.ndarray, *, max_length: int, device: torch.device
) -> dict[str, float]:
    """Mean hit@k and ndcg@k of the validation items, viewed items kept. valid: (users,) in the histories' order."""
    ranks, _ = rank_users(model, histories, valid, max_length=max_length, device=device)
    return {name: float(values.mean()) for name, values in hits_and_ndcgs(ranks).items()}


MakeBatches = Callable[[np.random.Generator], Iterable[BatchParts]]


def train_next_item(
    model: nn.Module,
    data: TrainingData,
    schedule: Schedule,
    *,
    max_length: int,
    negatives: Literal["all"] | int,
    seed: int,
    name: str,
    identity: Any,
    inputs: list[Path],
    curves: Path,
    device: torch.device,
    make_batches: MakeBatches | None = None,
) -> Outcome:
    """Train a `SequenceModel` in place with early stopping on validation, and leave it with its best epoch's weights.

    max_length: the latest items of a history that are read. negatives: see `negative_sampler`.
    name, identity, inputs: what decides the result beside data and schedule; an interrupted run is found by them.
    make_batches: an epoch's batches; by default all positions of each history at once, for causal models.
    """
    windows = training_windows(data.histories, max_length)

    def all_positions(rng: np.random.Generator) -> Iterable[BatchParts]:
        return training_batches(data.histories, windows, schedule.batch_positions, rng, device)

    def batches(epoch: int) -> Iterable[BatchParts]:
        if hasattr(model, "start_epoch"):
            model.start_epoch(seed + epoch)
        return shard_batches((make_batches or all_positions)(np.random.default_rng([seed, epoch])))

    def validate() -> dict[str, float]:
        return validation_metrics(model, data.histories, data.valid, max_length=max_length, device=device)

    model.sampler = negative_sampler(negatives, data.histories.counts(data.items))
    return fit(
        model,
        batches,
        validate,
        Plan(schedule.epochs, schedule.patience, MONITOR, schedule.learning_rate, seed),
        device,
        curves,
        state_path(name, [identity, schedule.model_dump(), max_length, negatives, seed], [*data.files, *inputs]),
    )
