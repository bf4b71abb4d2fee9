"""The one training loop: epochs, early stopping on validation, the best weights kept, resumable, live curves."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from dvclive import Live
from torch import Tensor, nn
from tqdm import tqdm

from stages.errors import InputError
from stages.files import atomic

SECONDS_BETWEEN_STATES = 20.0  # an interrupted run repeats at most about this much

Batches = Callable[[int], Iterable[tuple[Tensor, ...]]]  # the epoch's number → its batches
Validate = Callable[[], dict[str, float]]


@dataclass(frozen=True)
class Plan:
    epochs: int  # at most
    patience: int  # epochs without a better `monitor` before stopping
    monitor: str | None  # a key of what `validate` returns; higher is better. None: all epochs, the last weights
    learning_rate: float
    seed: int


@dataclass
class Outcome:
    """What a training run was: one row an epoch, and which epoch's weights the model now has."""

    rows: list[dict[str, float]]
    best_epoch: int
    best: float

    def summary(self) -> dict[str, float | int]:
        """How long it took and the best epoch's row."""
        return {"epochs": len(self.rows), "best_epoch": self.best_epoch, **self.rows[self.best_epoch - 1]}


def fit(
    model: nn.Module,
    batches: Batches,
    validate: Validate,
    plan: Plan,
    device: torch.device,
    curves: Path,
    state: Path,
    groups: list[dict[str, Any]] | None = None,
) -> Outcome:
    """Train `model` in place by `model.loss(*batch)["loss"]` with Adam and leave it with its best epoch's weights.

    groups: Adam's parameter groups with learning rates of their own; by default all that trains, at the plan's.
    curves: folder for DVCLive's files. state: where an interrupted run is kept; the same call goes on from there, to
    the same bits, because every epoch starts from a seed of its own. Raises InputError when the loss is not finite.
    """
    model.to(device)
    trainable = groups or [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=plan.learning_rate, fused=device.type in ("cpu", "cuda"))
    outcome, best_weights = Outcome([], 0, float("-inf")), _copied(model)
    if state.is_file():
        outcome, best_weights = _resume(state, model, optimizer, device)
    saved = time.monotonic()
    with Live(str(curves), dvcyaml=None, save_dvc_exp=False, report=None) as live:
        for row in outcome.rows:
            _log(live, row)
        bar = tqdm(range(len(outcome.rows) + 1, plan.epochs + 1), desc=curves.name, unit="epoch")
        for epoch in bar:
            if plan.monitor and len(outcome.rows) - outcome.best_epoch >= plan.patience:
                break
            row = _train_epoch(model, batches(epoch), optimizer, plan.seed, epoch, device)
            model.eval()
            row |= validate()
            outcome.rows.append(row)
            score = row[plan.monitor] if plan.monitor else float(epoch)
            if score > outcome.best:
                outcome.best, outcome.best_epoch, best_weights = score, epoch, _copied(model)
            _log(live, row)
            bar.set_postfix({"best": outcome.best_epoch, plan.monitor or "loss": row[plan.monitor or "loss"]})
            if time.monotonic() - saved > SECONDS_BETWEEN_STATES:
                _save(state, model, optimizer, outcome, best_weights)
                saved = time.monotonic()
    model.load_state_dict(best_weights)
    model.eval()
    state.unlink(missing_ok=True)
    return outcome


def _train_epoch(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, ...]],
    optimizer: torch.optim.Optimizer,
    seed: int,
    epoch: int,
    device: torch.device,
) -> dict[str, float]:
    """One pass over the batches → the mean of each loss term over steps."""
    torch.manual_seed(seed * 100_003 + epoch)
    model.train()
    sums: dict[str, Tensor] = {}
    steps = 0
    for batch in batches:
        terms = model.loss(*(tensor.to(device, non_blocking=True) for tensor in batch))
        optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()
        optimizer.step()
        steps += 1
        for name, value in terms.items():  # stays on the device: no wait for it inside the epoch
            sums[name] = sums.get(name, 0) + value.detach()
    means = {name: float(total) / steps for name, total in sums.items()}
    if not all(torch.isfinite(torch.tensor(list(means.values())))):
        raise InputError(f"the loss is {means['loss']} in epoch {epoch}: lower learning_rate in params.yaml")
    return means


def _log(live: Live, row: dict[str, float]) -> None:
    for name, value in row.items():
        live.log_metric(name, value)
    live.next_step()


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _save(
    state: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    outcome: Outcome,
    best_weights: dict[str, Tensor],
) -> None:
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "outcome": vars(outcome),
        "best_weights": best_weights,
    }
    with atomic(state) as temporary:
        torch.save(content, temporary)


def _resume(
    state: Path, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> tuple[Outcome, dict[str, Tensor]]:
    content = torch.load(state, map_location=device, weights_only=True)
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    return Outcome(**content["outcome"]), content["best_weights"]
