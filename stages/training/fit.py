"""The one training loop: epochs, early stopping on validation, the best weights kept, resumable, live curves."""

import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from dvclive import Live
from torch import Tensor, nn
from tqdm import tqdm

from stages.errors import InputError
from stages.files import atomic, is_main_process
from stages.parallel import distributed
from stages.parallel.device import has_bfloat16
from stages.parallel.placement import to_device

SECONDS_BETWEEN_STATES = 20.0  # an interrupted run repeats at most about this much
RATE = "positions_per_second"  # a live curve only: .dvcignore keeps it out of hashes, as no two runs have the same

Batches = Callable[[int], Iterable[distributed.BatchParts]]  # the epoch's number → its batches
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


class Step(nn.Module):
    """A model's loss as a forward pass, which is what Accelerate can spread over processes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *batch: Tensor) -> dict[str, Tensor]:
        return self.model.loss(*batch)


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
    A batch's tensors are sent to the device, arrays of NumPy stay in main memory.
    With several ranks each computes its shard of the batches (see parallel/distributed.py), and rank 0 writes.
    """
    model.to(device)
    accelerator = _accelerator(device)
    step = accelerator.prepare_model(Step(model), device_placement=False)
    trainable = groups or [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=plan.learning_rate, fused=device.type in ("cpu", "cuda"))
    outcome, best_weights = Outcome([], 0, float("-inf")), _copied(model)
    if saved_state := distributed.broadcast_from_main(_load(state)):
        outcome, best_weights = _resume(saved_state, model, optimizer, device)
    started, resumed = time.monotonic(), len(outcome.rows)
    saved = started
    first = is_main_process()
    with Live(str(curves), dvcyaml=None, save_dvc_exp=False, report=None) if first else nullcontext() as live:
        for row in outcome.rows:
            _log(live, row, plan)
        epochs = range(len(outcome.rows) + 1, plan.epochs + 1)
        bar = tqdm(epochs, desc=curves.name, unit="epoch", disable=None if first else True)
        for epoch in bar:
            if plan.monitor and len(outcome.rows) - outcome.best_epoch >= plan.patience:
                break
            torch.manual_seed(plan.seed * 100_003 + epoch)
            began = time.monotonic()
            row, positions = _train_epoch(step, batches(epoch), optimizer, accelerator, device)
            rate = positions / (time.monotonic() - began)
            if not all(map(math.isfinite, row.values())):
                raise InputError(f"the loss is {row['loss']} in epoch {epoch}: lower learning_rate in params.yaml")
            model.eval()
            row |= validate()
            outcome.rows.append(row)
            score = row[plan.monitor] if plan.monitor else float(epoch)
            if score > outcome.best:
                outcome.best, outcome.best_epoch, best_weights = score, epoch, _copied(model)
            _log(live, row | {RATE: rate}, plan)
            monitor = plan.monitor or "loss"
            bar.set_postfix({"best": outcome.best_epoch, monitor: row[monitor], "positions/s": f"{rate:.0f}"})
            if first and time.monotonic() - saved > SECONDS_BETWEEN_STATES:
                _save(state, model, optimizer, outcome, best_weights)
                saved = time.monotonic()
    model.load_state_dict(best_weights)
    model.eval()
    if first:
        state.unlink(missing_ok=True)
        run, seconds = len(outcome.rows) - resumed, time.monotonic() - started
        print(f"{curves.name}: {run} epochs in {seconds:.0f} s, that of epoch {outcome.best_epoch} kept", flush=True)
    return outcome


def _accelerator(device: torch.device) -> Accelerator:
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if has_bfloat16(device) else "no",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def _train_epoch(
    step: nn.Module,
    batches: Iterable[distributed.BatchParts],
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    device: torch.device,
) -> tuple[dict[str, float], int]:
    """One pass over the batches → the mean of each loss term over steps and processes, and the positions read."""
    step.train()
    sums: dict[str, Tensor] = {}
    steps, positions = 0, torch.zeros((), dtype=torch.long, device=device)
    for batch in batches:
        batch = tuple(to_device(part, device) if isinstance(part, Tensor) else part for part in batch)
        positions += (batch[0] > 0).sum()
        with accelerator.autocast():
            terms = step(*batch)
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(terms["loss"])
        optimizer.step()
        steps += 1
        for name, value in terms.items():  # stays on the device: no wait for it inside the epoch
            sums[name] = sums.get(name, 0) + value.detach()
    totals = distributed.all_reduce_sum(torch.stack([total.cpu().double() for total in sums.values()])).tolist()
    means = {name: total / steps / distributed.world_size() for name, total in zip(sums, totals, strict=True)}
    return means, int(distributed.all_reduce_sum(positions))


def _log(live: Live | None, row: dict[str, float], plan: Plan) -> None:
    if live is None:
        return
    for name, value in (row | {"learning_rate": plan.learning_rate}).items():
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


def _load(state: Path) -> dict[str, Any] | None:
    return torch.load(state, map_location="cpu", weights_only=True) if state.is_file() else None


def _resume(
    saved_state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> tuple[Outcome, dict[str, Tensor]]:
    model.load_state_dict(saved_state["model"])
    optimizer.load_state_dict(saved_state["optimizer"])
    best_weights = {name: tensor.to(device) for name, tensor in saved_state["best_weights"].items()}
    return Outcome(**saved_state["outcome"]), best_weights
