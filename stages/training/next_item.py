"""Training on next-item prediction: the call by which `pretrain`, `posttrain` and the baselines train."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import polars as pl
import torch
from jaxtyping import Int

from stages.data.histories import Histories, training_batches, training_windows
from stages.files import read_parquet
from stages.models.smoothing import Smoothing
from stages.models.softmax import Sampler, negative_sampler
from stages.parallel.distributed import BatchParts, shard_batches, world_size
from stages.params import FILTERED, Schedule
from stages.provenance import Ids, check_inputs
from stages.training.checkpoints import state_path
from stages.training.fit import IsHopeless, Outcome, Plan, TrainableModel, fit
from stages.training.hit_and_ndcg import hits_and_ndcgs
from stages.training.lazy_adam import sparse_tables
from stages.training.ranking import RankingModel, rank_users, rank_users_with_viewed_kept


@runtime_checkable
class SequenceModel(TrainableModel, RankingModel, Protocol):
    """A model that is trained on next items and ranks them: SICSRec, its ID encoder, systems of Table 4."""

    sampler: Sampler | None  # of negatives; None: the softmax is over all items
    smoothing: Smoothing | None  # of targets


@runtime_checkable
class PreparesEpochs(Protocol):
    """A model that computes something before each epoch."""

    def start_epoch(self, seed: int) -> None:
        """Prepare for the next epoch. seed: another one each epoch."""


@dataclass(frozen=True)
class TrainingData:
    """Training histories and validation items. It does not hold the test items."""

    histories: Histories  # of training interactions
    before_valid: Histories  # what precedes each validation item
    valid: Int[np.ndarray, " users"]  # the validation items
    items: int  # N
    files: tuple[Path, ...]  # the files with the interactions
    inputs: Ids  # of these files and of `beside`, to be recorded in what is trained on them

    @staticmethod
    def read(split: Path, *beside: Path) -> "TrainingData":
        """Read what `split` wrote. Raises InputError when it and the artifacts `beside` do not belong together."""
        files = tuple(split / f"{name}.parquet" for name in ("train", "valid", "items"))
        train, valid, items = (read_parquet(file) for file in files)
        ids = check_inputs(*files, *beside)
        histories = Histories.from_frame(train)
        before_valid = Histories.before(valid, otherwise=lambda: histories)
        return TrainingData(histories, before_valid, valid["item"].to_numpy(), len(items), files[:2], ids)

    def before_test(self, test: pl.DataFrame) -> Histories:
        """What precedes each test item. test: the rows of test.parquet."""
        return Histories.before(test, otherwise=lambda: self.histories.extended(self.valid))


def training_in_words(summary: dict[str, Any], monitor: str) -> str:
    """How long a model was trained and how good its best epoch is. summary: of `Outcome.summary`."""
    epoch, best = summary["best_epoch"], summary[monitor]
    return f"{summary['epochs']} epochs, best validation {monitor} {best:.4f} at epoch {epoch}"


def validation_metrics(
    model: RankingModel,
    histories: Histories,
    valid: Int[np.ndarray, " users"],
    *,
    monitor: str,
    max_length: int,
    device: torch.device,
) -> dict[str, float]:
    """Mean hit@k and ndcg@k of the validation items in the protocol of `monitor`, under their keys in evaluate.json.

    valid: in the histories' order. monitor: one of MONITORS; the result has it.
    """
    if monitor.startswith(FILTERED):
        prefix, (_, ranks) = FILTERED, rank_users(model, histories, valid, max_length=max_length, device=device)
    else:
        prefix = ""
        ranks = rank_users_with_viewed_kept(model, histories, valid, max_length=max_length, device=device)
    return {prefix + name: float(values.mean()) for name, values in hits_and_ndcgs(ranks).items()}


MakeBatches = Callable[[np.random.Generator], Iterable[BatchParts]]


def train_next_item(
    model: SequenceModel,
    data: TrainingData,
    schedule: Schedule,
    *,
    max_length: int,
    negatives: Literal["all"] | int,
    monitor: str | None,
    seed: int,
    name: str,
    identity: Any,
    inputs: list[Path],
    curves: Path,
    device: torch.device,
    smoothing: Smoothing | None = None,
    make_batches: MakeBatches | None = None,
    is_hopeless: IsHopeless | None = None,
) -> Outcome:
    """Train a model in place with early stopping on validation; it ends with its best epoch's weights.

    max_length: the latest items of a history that the model reads. negatives: see `negative_sampler`.
    monitor: the validation metric that stops training and picks the weights, one of MONITORS; None: all epochs of the
    schedule are trained, without validation.
    smoothing: of the targets, by SICSRec and its ID encoder; other systems have none.
    name, identity, inputs: what decides the result besides data and schedule; with them an interrupted run is found.
    make_batches: an epoch's batches; by default all positions of each history at once, for causal models.
    is_hopeless: see `fit`.
    """
    windows = training_windows(data.histories, max_length)

    def all_positions(rng: np.random.Generator) -> Iterable[BatchParts]:
        return training_batches(data.histories, windows, schedule.batch_positions, rng, device)

    def batches(epoch: int) -> Iterable[BatchParts]:
        if isinstance(model, PreparesEpochs):
            model.start_epoch((seed + epoch) % 2**32)  # the largest that scikit-learn takes is one less
        return shard_batches((make_batches or all_positions)(np.random.default_rng([seed, epoch])))

    def validate() -> dict[str, float]:
        if monitor is None:
            return {}
        return validation_metrics(
            model, data.before_valid, data.valid, monitor=monitor, max_length=max_length, device=device
        )

    model.sampler = negative_sampler(negatives, data.histories.counts(data.items))
    model.smoothing = smoothing
    sparse = device.type == "cpu" and world_size() == 1  # elsewhere a dense gradient costs less
    lazy = sparse_tables(model.modules(), sparse=sparse) if model.sampler else []
    settings = [identity, schedule.model_dump(), max_length, negatives, monitor, seed]
    return fit(
        model,
        batches,
        validate,
        Plan(schedule.epochs, schedule.patience, monitor, schedule.learning_rate, seed),
        device,
        curves,
        state_path(name, settings, [*data.files, *inputs]),
        lazy=lazy,
        is_hopeless=is_hopeless,
    )
