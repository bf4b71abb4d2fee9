"""Time and accuracy of our own training and ranking."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stages.data.histories import Batch, Histories, training_batches, training_windows
from stages.files import read_parquet, read_vectors
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.params import Params
from stages.training.fit import Plan, Validate, fit
from stages.training.metrics import mean_metrics
from stages.training.next_item import SequenceModel, validation_metrics
from stages.training.ranking import rank_users

ARTIFACTS = Path("artifacts")
CPU = torch.device("cpu")
MONITOR = "ndcg@10"  # what stops training here, as in the peers
EPOCHS = 3  # per model; the median is reported


@dataclass(frozen=True)
class Data:
    """A split. train: histories; valid, test: the held-out item of each user; known: train with the validation item."""

    train: Histories
    valid: np.ndarray
    known: Histories
    test: np.ndarray
    items: int


def read_data() -> Data:
    """The split of the last `dvc repro`."""
    train = Histories.from_frame(read_parquet(ARTIFACTS / "split/train.parquet"))
    valid, test = (read_parquet(ARTIFACTS / f"split/{name}.parquet")["item"].to_numpy() for name in ("valid", "test"))
    items = len(read_parquet(ARTIFACTS / "split/items.parquet"))
    return Data(train, valid, train.extended(valid), test, items)


def common_length(params: Params, data: Data) -> int:
    """The 99th percentile of the histories' lengths, `max_length` at most: what a peer's padding need not exceed."""
    return min(int(np.percentile(data.known.lengths, 99)), params.sequence.max_length)


def new_sasrec(params: Params, items: int) -> Sasrec:
    """An untrained ID encoder with the sizes of params.yaml."""
    torch.manual_seed(params.seed)
    return Sasrec(
        SasrecConfig(items=items, dim=params.dim, dropout=params.pretrain.dropout, **params.sequence.model_dump())
    )


def new_sicsrec(params: Params, items: int, vectors: dict[str, torch.Tensor]) -> Sicsrec:
    """An untrained SICSRec on these content vectors; of its ID encoder only the low-rank updates are trained."""
    p = params.posttrain
    torch.manual_seed(params.seed)
    model = Sicsrec(
        SicsrecConfig(
            items=items,
            dim=params.dim,
            **params.sequence.model_dump(),
            decoder_layers=p.decoder_layers,
            dropout=p.dropout,
            item_dropout=p.item_dropout,
            tau=params.tau,
            alpha=params.alpha,
            lam=params.lam,
            rank=params.rank,
            widths={name: v.shape[1] for name, v in vectors.items()},
            use_id=True,
            frozen=("id_encoder",),
        )
    )
    model.load_content_vectors(vectors)
    return model


def new_models(params: Params, items: int) -> tuple[Sasrec, Sicsrec]:
    """An untrained ID encoder, and an untrained SICSRec on the item vectors of the last `dvc repro`."""
    vectors = read_vectors(ARTIFACTS / "embeddings.parquet", [name for name in params.modalities if name != "id"])
    tensors = {name: torch.from_numpy(matrix) for name, matrix in vectors.items()}
    return new_sasrec(params, items), new_sicsrec(params, items, tensors)


def train(model: SequenceModel, params: Params, data: Data, plan: Plan, validate: Validate = dict) -> None:
    """Train as the stages do, writing to a temporary folder."""
    p = params.pretrain
    windows = training_windows(data.train, params.sequence.max_length)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            lambda epoch: training_batches(data.train, windows, p.batch_positions, np.random.default_rng(epoch)),
            validate, plan, CPU, Path(folder) / "curves", Path(folder) / "state",
        )  # fmt: skip


def epoch_batches(params: Params, data: Data) -> Iterable[Batch]:
    """The batches of one epoch of pretraining."""
    windows = training_windows(data.train, params.sequence.max_length)
    return training_batches(data.train, windows, params.pretrain.batch_positions, np.random.default_rng(params.seed))


class GoalReached(Exception):
    """Ends training early: the validation score has reached the goal."""


def seconds_to_reach(params: Params, data: Data, goal: float) -> float | None:
    """Training time of the ID encoder, validated after every epoch, until validation ndcg@10 is at least `goal`.

    None when early stopping ends it before.
    """
    p, model = params.pretrain, new_sasrec(params, data.items)

    def validate() -> dict[str, float]:
        metrics = validation_metrics(
            model, data.train, data.valid, monitor=MONITOR, max_length=params.sequence.max_length, device=CPU
        )
        if metrics[MONITOR] >= goal:
            raise GoalReached
        return metrics

    begin = time.perf_counter()
    try:
        train(model, params, data, Plan(p.epochs, p.patience, MONITOR, p.learning_rate, params.seed), validate)
    except GoalReached:
        return time.perf_counter() - begin
    return None


def ndcg_of_test_items(params: Params, data: Data) -> dict[str, float]:
    """ndcg@10 of the test items by an ID encoder trained with early stopping, viewed items kept and filtered out."""
    p, model, length = params.pretrain, new_sasrec(params, data.items), params.sequence.max_length
    train(
        model, params, data, Plan(p.epochs, p.patience, MONITOR, p.learning_rate, params.seed),
        lambda: validation_metrics(model, data.train, data.valid, monitor=MONITOR, max_length=length, device=CPU),
    )  # fmt: skip
    kept, filtered = rank_users(model, data.known, data.test, max_length=length, device=CPU)
    return {"kept": mean_metrics(kept)[MONITOR], "filtered": mean_metrics(filtered)[MONITOR]}


def seconds(call: Callable[[], object]) -> float:
    """Duration of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def epoch_seconds(model: SequenceModel, params: Params, data: Data) -> float:
    """Median duration of EPOCHS epochs."""
    plan = Plan(1, 1, None, params.pretrain.learning_rate, params.seed)
    return statistics.median(seconds(lambda: train(model, params, data, plan)) for _ in range(EPOCHS))


def ranking_seconds(model: SequenceModel, params: Params, data: Data) -> float:
    """Duration of ranking every user's test item in both protocols."""
    model.eval()
    length = params.sequence.max_length
    return seconds(lambda: rank_users(model, data.known, data.test, max_length=length, device=CPU))
