"""Seconds of our own training and ranking, its share of what the machine can multiply, and how it grows."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from stages.data.histories import Batch, Histories, training_batches, training_windows
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.params import Params
from stages.training.fit import Plan, Validate, fit
from stages.training.ranking import mean_metrics, rank_users

CPU = torch.device("cpu")
EPOCHS = 3  # of each model, of which the fastest counts: other work on the machine only ever adds
GROWTH_BATCHES = 40  # of each size of log
ITEMS_OF_GROWTH = 2000


@dataclass(frozen=True)
class Data:
    """train: what models learn from; valid: their validation items; known and test: question and answer."""

    train: Histories
    valid: np.ndarray
    known: Histories
    test: np.ndarray
    items: int


def new_sasrec(params: Params, items: int) -> Sasrec:
    """An untrained ID encoder of the params' sizes."""
    p = params.pretrain
    torch.manual_seed(params.seed)
    return Sasrec(SasrecConfig(items, params.dim, p.layers, p.heads, p.dropout, p.max_length))


def new_sicsrec(params: Params, items: int, vectors: dict[str, torch.Tensor]) -> Sicsrec:
    """An untrained SICSRec on these content vectors, its ID encoder frozen but for low-rank updates."""
    base, p = params.pretrain, params.posttrain
    torch.manual_seed(params.seed)
    model = Sicsrec(
        SicsrecConfig(
            items, params.dim, base.layers, p.decoder_layers, base.heads, p.dropout, p.item_dropout, base.max_length,
            params.tau, params.alpha, params.lam, params.rank, {name: v.shape[1] for name, v in vectors.items()},
            use_id=True, frozen=("id_encoder",),
        )
    )  # fmt: skip
    model.load_content_vectors(vectors)
    return model


def train(model: nn.Module, params: Params, data: Data, plan: Plan, validate: Validate = dict) -> None:
    """Train as the stages do, in a temporary folder."""
    p = params.pretrain
    windows = training_windows(data.train, p.max_length)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            lambda epoch: training_batches(data.train, windows, p.batch_positions, np.random.default_rng(epoch)),
            validate, plan, CPU, Path(folder) / "curves", Path(folder) / "state",
        )  # fmt: skip


def seconds_to_reach(params: Params, data: Data, goal: float) -> float:
    """How long the ID encoder trains, validated after every epoch, until validation ndcg@10 is at least `goal`."""
    p, model, reached = params.pretrain, new_sasrec(params, data.items), []

    def validate() -> dict[str, float]:
        score = mean_metrics(rank_users(model, data.train, data.valid, p.max_length, CPU)[0])["ndcg@10"]
        if score >= goal:
            reached.append(time.perf_counter())
        return {"below": min(score, goal)}  # cannot rise any more once it is there, so that patience ends the run

    begin = time.perf_counter()
    train(model, params, data, Plan(p.epochs, p.patience, "below", p.learning_rate, params.seed), validate)
    return reached[0] - begin


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def epoch_seconds(model: nn.Module, params: Params, data: Data) -> float:
    """The fastest of EPOCHS epochs."""
    plan = Plan(1, 1, None, params.pretrain.learning_rate, params.seed)
    return min(seconds(lambda: train(model, params, data, plan)) for _ in range(EPOCHS))


def ranking_seconds(model: nn.Module, params: Params, data: Data) -> float:
    """Ranking every user's test item, with viewed items kept and with them left out."""
    model.eval()
    return seconds(lambda: rank_users(model, data.known, data.test, params.pretrain.max_length, CPU))


def epoch_flops(model: nn.Module, params: Params, data: Data) -> int:
    """Floating-point operations of an epoch's matrix products, forward and backward."""
    windows = training_windows(data.train, params.pretrain.max_length)
    rng = np.random.default_rng(params.seed)
    model.train()
    with FlopCounterMode(display=False) as counter:
        for batch in training_batches(data.train, windows, params.pretrain.batch_positions, rng):
            model.loss(*batch)["loss"].backward()
    return counter.get_total_flops()


def matmul_rate(rows: int, dim: int, columns: tuple[int, ...]) -> float:
    """Operations a second of float32 products (rows, dim) @ (dim, n), the best over `columns`."""
    rates = []
    for n in columns:
        left, right = torch.randn(rows, dim), torch.randn(dim, n)
        timer = Timer("left @ right", globals={"left": left, "right": right}, num_threads=torch.get_num_threads())
        rates.append(2 * rows * dim * n / timer.blocked_autorange(min_run_time=1.0).median)
    return max(rates)


def synthetic_histories(interactions: int, seed: int) -> Histories:
    """Histories of 3 to 9 items."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 10, size=interactions // 6)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Histories(rng.integers(1, ITEMS_OF_GROWTH + 1, size=offsets[-1]), offsets)


def seconds_an_interaction(params: Params, interactions: int) -> float:
    """What an epoch costs per interaction: the whole log's windows, sorting and cutting, and its mean batch.

    Of a long log only GROWTH_BATCHES batches are trained, and their time is taken for all.
    """
    p, log = params.pretrain, synthetic_histories(interactions, params.seed)
    model = new_sasrec(params, ITEMS_OF_GROWTH)
    optimizer = torch.optim.Adam(model.parameters(), lr=p.learning_rate, fused=True)

    def step(batch: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        model.loss(*batch)["loss"].backward()
        optimizer.step()

    begin = time.perf_counter()
    windows = training_windows(log, p.max_length)
    batches = training_batches(log, windows, p.batch_positions, np.random.default_rng(params.seed))
    first = next(batches)
    planned = time.perf_counter() - begin
    step(first)
    batches = islice(batches, GROWTH_BATCHES)
    costs = [seconds(lambda b=batch: step(b)) / int((batch.targets > 0).sum()) for batch in batches]
    a_target = float(np.median(costs))
    return (planned + a_target * int(windows.targets.sum())) / interactions
