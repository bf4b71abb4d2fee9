"""What `python -m stages.bench.card` measures of training and encoders, on synthetic data: no dataset is needed."""

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.bench import rates, training
from stages.bench.epoch_sample import synthetic_histories
from stages.bench.matmul import epoch_flops, matmul_rate
from stages.data.histories import Batch, Histories, training_batches, training_windows
from stages.encoders.image import tiny_image_encoder
from stages.encoders.text import tiny_text_encoder
from stages.models.sasrec import Sasrec
from stages.models.sicsrec import Sicsrec
from stages.parallel.device import uses_bfloat16
from stages.params import Params
from stages.training.fit import Plan, TrainableModel, fit

Result = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much each part does. batches: target positions per batch. widths: of the content vectors."""

    interactions: int
    items: int
    batches: tuple[int, ...]
    widths: Mapping[str, int]
    titles: int
    covers: int
    large_items: int
    large_steps: int
    square: int  # side of the matrices of which the device's rate is measured
    tiny_encoders: bool = False


FULL = Sizes(
    interactions=200_000, items=20_000, batches=(1024, 16_384), widths={"text": 768, "image": 1000}, titles=16_384,
    covers=2_048, large_items=1_000_000, large_steps=10, square=8192,
)  # fmt: skip
TINY = Sizes(
    interactions=600, items=50, batches=(64, 128), widths={"text": 8, "image": 8}, titles=12, covers=12,
    large_items=500, large_steps=2, square=64, tiny_encoders=True,
)  # fmt: skip


def log(sizes: Sizes, interactions: int | None = None) -> Histories:
    """Synthetic histories, of `sizes.interactions` items unless another number is given."""
    return synthetic_histories(interactions or sizes.interactions, items=sizes.items, seed=0)


def sequence_model(name: str, params: Params, sizes: Sizes) -> Sasrec | Sicsrec:
    """pretrain: SASRec. posttrain, posttrain_covers: SICSRec with text, and with text and image vectors."""
    if name == "pretrain":
        return training.new_sasrec(params, sizes.items)
    modalities = ("text", "image") if name == "posttrain_covers" else ("text",)
    generator = torch.Generator().manual_seed(0)
    vectors = {m: torch.randn(sizes.items, sizes.widths[m], generator=generator) for m in modalities}
    return training.new_sicsrec(params, sizes.items, vectors)


def epoch_of(
    histories: Histories, params: Params, positions: int, device: torch.device
) -> Callable[[int], Iterable[Batch]]:
    """A function that makes the batches of an epoch."""
    windows = training_windows(histories, params.sequence.max_length)
    return lambda epoch: training_batches(histories, windows, positions, np.random.default_rng(epoch), device)


def targets(histories: Histories, params: Params) -> int:
    """How many target positions an epoch has."""
    return int(training_windows(histories, params.sequence.max_length).targets.sum())


def peak_gb(device: torch.device) -> float | None:
    """Peak of the memory that tensors took since the last call, in 10⁹ bytes; None where there is no GPU."""
    if device.type != "cuda":
        return None
    peak = torch.cuda.max_memory_allocated(device) / 1e9
    torch.cuda.reset_peak_memory_stats(device)
    return peak


def device_rate(sizes: Sizes, device: torch.device) -> float:
    """FLOP/s of square matrix products in the precision of training."""
    dtype = torch.bfloat16 if uses_bfloat16(device) else torch.float32
    return matmul_rate(rows=sizes.square, dim=sizes.square, columns=(sizes.square,), device=device, dtype=dtype)


def measure_training(params: Params, device: torch.device, sizes: Sizes) -> Result:
    """Target positions per second of both steps by batch size, peak memory, share of the device's matrix rate."""
    rate, histories = device_rate(sizes, device), log(sizes)
    result: Result = {"matmul_tflops": rate / 1e12}
    for name in ("pretrain", "posttrain", "posttrain_covers"):
        for positions in sizes.batches:
            model, batches = sequence_model(name, params, sizes), epoch_of(histories, params, positions, device)
            seconds = rates.epoch_seconds(model, batches, params.pretrain.learning_rate, device)
            result[f"{name}_{positions}"] = {
                "positions_per_second": targets(histories, params) / seconds,
                "peak_gb": peak_gb(device),
                "matmul_share": epoch_flops(model, batches(0), device) / seconds / rate,
            }
    return result


def measure_syncs(params: Params, device: torch.device, sizes: Sizes) -> Result:
    """How often the host waits for the GPU within an epoch, not counting its start and end; None without a GPU.

    torch warns of each wait. Those of an epoch of half the log are subtracted from those of the whole log, so that the
    waits that every epoch has once do not count.
    """
    counts = {}
    for name in ("pretrain", "posttrain"):
        short, long = (
            _syncs(sequence_model(name, params, sizes), params, log(sizes, size), sizes.batches[0], device)
            for size in (sizes.interactions // 2, sizes.interactions)
        )
        counts[f"{name}_host_syncs"] = None if long is None or short is None else long - short
    return counts


def _syncs(
    model: TrainableModel, params: Params, histories: Histories, positions: int, device: torch.device
) -> int | None:
    train_once(model, params, epoch_of(histories, params, positions, device), device)  # libraries start up
    if device.type != "cuda":
        return None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            train_once(model, params, epoch_of(histories, params, positions, device), device)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def train_once(
    model: TrainableModel, params: Params, batches: Callable[[int], Iterable[Any]], device: torch.device
) -> None:
    """One epoch of `fit`."""
    plan = Plan(1, 1, None, params.pretrain.learning_rate, 0)
    with TemporaryDirectory() as folder:
        fit(model, batches, dict, plan, device, Path(folder) / "curves", Path(folder) / "state")


def measure_encoders(params: Params, device: torch.device, sizes: Sizes) -> Result:
    """Titles and covers per second with encoders of the sizes of BERT-base and Swin-base, and random weights."""
    titles = [f"title {number} of {'many ' * (number % 12)}words" for number in range(sizes.titles)]
    if sizes.tiny_encoders:
        text, image = tiny_text_encoder(titles, "cls", params.encoders.max_tokens), tiny_image_encoder("head")
    else:
        text, image = rates.base_text_encoder(titles, params), rates.base_image_encoder(params)
    result: Result = rates.text_rates(text, titles, params, device)
    result |= {"text_peak_gb": peak_gb(device)}
    result |= rates.image_rates(image, sizes.covers, params, device)
    return result | {"image_peak_gb": peak_gb(device)}


class Compiled(nn.Module):
    """A model whose loss is compiled by `torch.compile`."""

    def __init__(self, model: Sasrec | Sicsrec) -> None:
        super().__init__()
        self.model = model
        self.compiled = torch.compile(model.loss, dynamic=True)

    def loss(self, *batch: Tensor) -> dict[str, Tensor]:
        result: dict[str, Tensor] = self.compiled(*batch)
        return result


def measure_compile(params: Params, device: torch.device, sizes: Sizes) -> Result:
    """Target positions per second of pretraining with and without `torch.compile`, and seconds of the first epoch."""
    histories, positions = log(sizes), sizes.batches[-1]
    batches, result = epoch_of(histories, params, positions, device), {}
    models = {
        "off": sequence_model("pretrain", params, sizes),
        "on": Compiled(sequence_model("pretrain", params, sizes)),
    }
    for name, model in models.items():
        begin = time.perf_counter()
        train_once(model, params, batches, device)
        result[f"compile_{name}_first_epoch_seconds"] = time.perf_counter() - begin
        seconds = rates.epoch_seconds(model, batches, params.pretrain.learning_rate, device)
        result[f"compile_{name}_positions_per_second"] = targets(histories, params) / seconds
    return result


def measure_large(params: Params, device: torch.device, sizes: Sizes) -> Result:
    """Pretraining with a softmax over all items of a large catalogue (`loss.negatives=all`), dim 64."""
    params = params.model_copy(update={"dim": 64})
    positions = sizes.batches[0]
    histories = synthetic_histories(positions * 6 // 5 * sizes.large_steps, items=sizes.large_items, seed=0)
    model = training.new_sasrec(params, sizes.large_items)
    peak_gb(device)
    seconds = rates.epoch_seconds(model, epoch_of(histories, params, positions, device), 0.001, device)
    return {
        "items": sizes.large_items, "positions_per_second": targets(histories, params) / seconds,
        "peak_gb": peak_gb(device),
    }  # fmt: skip
