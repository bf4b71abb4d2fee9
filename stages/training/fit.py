"""The training loop: early stopping on validation, the weights of the best epoch, resuming, live curves."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from dvclive import Live
from torch import Tensor, nn
from tqdm import tqdm

from stages.errors import InputError
from stages.files import atomic, is_main_process
from stages.parallel import distributed
from stages.parallel.device import uses_bfloat16
from stages.parallel.placement import to_device
from stages.training.lazy_adam import LazyAdam

SECONDS_BETWEEN_STATES = 20.0  # an interrupted run repeats about this much at most
RATE = "positions_per_second"  # only a live curve: it differs in every run, so .dvcignore leaves it out of hashes

Batches = Callable[[int], Iterable[distributed.BatchParts]]  # epoch, 1… → its batches
Validate = Callable[[], dict[str, float]]
IsHopeless = Callable[[int, float], bool]  # epoch and its `monitor` → whether to abandon the training


class AbandonedError(Exception):
    """`is_hopeless` ended the training: its result is not needed."""


class DivergedError(InputError):
    """The loss, or a weight, is not finite."""


@runtime_checkable
class TrainableModel(Protocol):
    """What `fit` calls: an `nn.Module` with a loss."""

    def loss(self, *batch: Any, **named: Any) -> dict[str, Tensor]:
        """The loss of a batch under `loss`, and its terms under other names. All of them scalars."""

    def to(self, device: torch.device) -> Any: ...

    def eval(self) -> Any: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


@dataclass(frozen=True)
class Plan:
    """How long to train, and how."""

    epochs: int  # at most
    patience: int  # epochs without a better `monitor` before stopping
    monitor: str | None  # key of `validate`'s result, higher is better; None: train all epochs, take the last weights
    learning_rate: float
    seed: int


@dataclass
class Outcome:
    """The result of a training run: one row of losses and metrics per epoch, and the epoch whose weights are taken."""

    rows: list[dict[str, float]]
    best_epoch: int  # 1…
    best: float  # its value of `monitor`

    def summary(self) -> dict[str, float | int]:
        """The number of epochs, and the row of the best one."""
        return {"epochs": len(self.rows), "best_epoch": self.best_epoch, **self.rows[self.best_epoch - 1]}


class Step(nn.Module):
    """A model's loss as a forward pass: DistributedDataParallel wraps `forward`."""

    def __init__(self, model: TrainableModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *batch: Tensor | np.ndarray) -> dict[str, Tensor]:
        return self.model.loss(*batch)


def fit(
    model: TrainableModel,
    batches: Batches,
    validate: Validate,
    plan: Plan,
    device: torch.device,
    curves: Path,
    state: Path,
    groups: list[dict[str, Any]] | None = None,
    lazy: Sequence[nn.Parameter] = (),
    is_hopeless: IsHopeless | None = None,
) -> Outcome:
    """Minimise `model.loss(*batch)["loss"]` with Adam, in place; the model ends with its best epoch's weights.

    batches: tensors are copied to the device, NumPy arrays stay in main memory. validate: metrics of the model, which
    is in evaluation mode. curves: folder for DVCLive's files. state: file of an interrupted run; the same call
    continues from it to the same bits, because each epoch starts from its own seed. groups: Adam's parameter groups
    with their own learning rates; by default all trainable parameters at the plan's rate. lazy: tables of which only
    touched rows are updated (see LazyAdam).
    is_hopeless: asked after each epoch, those of an interrupted run included; needs a `monitor`.
    With several ranks, each computes its shard of the batches (see parallel/distributed.py) and rank 0 writes.
    Raises DivergedError when the loss or a weight is not finite, AbandonedError when `is_hopeless` says so.
    """
    model.to(device)
    accelerator = _accelerator(device)
    step = accelerator.prepare_model(Step(model), device_placement=False)
    groups = groups or [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]
    optimizer = LazyAdam(groups, lazy, lr=plan.learning_rate, fused=device.type in ("cpu", "cuda"))
    outcome, best_weights = Outcome([], 0, float("-inf")), _weights(model)
    if saved_state := distributed.broadcast_from_main(_load(state)):
        outcome, best_weights = _resume(saved_state, model, optimizer, device)
    saved, main = time.monotonic(), is_main_process()
    if outcome.rows and main:
        print(f"{curves.name}: continues after epoch {len(outcome.rows)} of an interrupted run", flush=True)
    with Live(str(curves), dvcyaml=None, save_dvc_exp=False, report=None) if main else nullcontext() as live:
        for epoch, row in enumerate(outcome.rows, 1):
            _log(live, row, plan)
            _abandon_if_hopeless(is_hopeless, epoch, row, plan, state)
        epochs = range(len(outcome.rows) + 1, plan.epochs + 1)
        bar = tqdm(epochs, desc=curves.name, unit="epoch", disable=None if main else True)
        for epoch in bar:
            if plan.monitor and len(outcome.rows) - outcome.best_epoch >= plan.patience:
                break
            torch.manual_seed(plan.seed * 100_003 + epoch)
            began = time.monotonic()
            row, positions = _train_epoch(step, batches(epoch), optimizer, accelerator, device)
            rate = positions / (time.monotonic() - began)
            _check_finite(row, model, epoch)
            model.eval()
            row |= validate()
            outcome.rows.append(row)
            score = row[plan.monitor] if plan.monitor else float(epoch)
            if score > outcome.best:
                outcome.best, outcome.best_epoch, best_weights = score, epoch, _weights(model)
            _log(live, row | {RATE: rate}, plan)
            _abandon_if_hopeless(is_hopeless, epoch, row, plan, state)
            monitor = plan.monitor or "loss"
            bar.set_postfix({"best": outcome.best_epoch, monitor: row[monitor], "positions/s": f"{rate:.0f}"})
            if main and time.monotonic() - saved > SECONDS_BETWEEN_STATES:
                _save(state, model, optimizer, outcome, best_weights)
                saved = time.monotonic()
    model.load_state_dict(best_weights)
    model.eval()
    if main:
        state.unlink(missing_ok=True)
    return outcome


def _accelerator(device: torch.device) -> Accelerator:
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if uses_bfloat16(device) else "no",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def _train_epoch(
    step: nn.Module,
    batches: Iterable[distributed.BatchParts],
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    device: torch.device,
) -> tuple[dict[str, float], int]:
    """One pass over the batches → the mean of each loss term over steps and ranks, and the number of positions read."""
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
        for name, value in terms.items():  # the sums stay on the device: no synchronisation within the epoch
            sums[name] = sums.get(name, 0) + value.detach()
    totals = distributed.all_reduce_sum(torch.stack([total.cpu().double() for total in sums.values()])).tolist()
    means = {name: total / steps / distributed.world_size() for name, total in zip(sums, totals, strict=True)}
    return means, int(distributed.all_reduce_sum(positions))


def _check_finite(row: dict[str, float], model: TrainableModel, epoch: int) -> None:
    """Raise DivergedError. The last step of an epoch can spoil weights after its loss was computed."""
    diverged = None
    if not all(map(math.isfinite, row.values())):
        diverged = f"the loss is {row['loss']}"
    elif not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        diverged = "weights are not finite"
    if diverged:
        raise DivergedError(f"{diverged} in epoch {epoch}: lower learning_rate in params.yaml")


def _log(live: Live | None, row: dict[str, float], plan: Plan) -> None:
    if live is None:
        return
    for name, value in (row | {"learning_rate": plan.learning_rate}).items():
        live.log_metric(name, value)
    live.next_step()


def _abandon_if_hopeless(
    is_hopeless: IsHopeless | None, epoch: int, row: dict[str, float], plan: Plan, state: Path
) -> None:
    """Raise AbandonedError, without a state to continue from, when `is_hopeless` says so."""
    if is_hopeless and plan.monitor and is_hopeless(epoch, row[plan.monitor]):
        state.unlink(missing_ok=True)
        raise AbandonedError


def _weights(model: TrainableModel) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _save(
    state: Path,
    model: TrainableModel,
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
    with atomic(state) as temporary, temporary.open("wb") as file:  # given a path, torch hides why it cannot write
        torch.save(content, file)


def _load(state: Path) -> dict[str, Any] | None:
    """The state of an interrupted run; None without one, or with one that a crash of the machine has cut short."""
    if not state.is_file():
        return None
    try:
        content: dict[str, Any] = torch.load(state, map_location="cpu", weights_only=True)
    except (EOFError, OSError, RuntimeError) as error:  # which of them depends on where it ends
        if is_main_process():
            print(f"{state} cannot be read ({error!r:.100}): the training starts anew")
        return None
    return content


def _resume(
    saved_state: dict[str, Any], model: TrainableModel, optimizer: torch.optim.Optimizer, device: torch.device
) -> tuple[Outcome, dict[str, Tensor]]:
    model.load_state_dict(saved_state["model"])
    optimizer.load_state_dict(saved_state["optimizer"])
    best_weights = {name: tensor.to(device) for name, tensor in saved_state["best_weights"].items()}
    return Outcome(**saved_state["outcome"]), best_weights
