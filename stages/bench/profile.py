"""Where the time of training and ranking goes: `python -m stages.bench.profile`, after `dvc repro`, a minute.

torch's profiler runs on batches of `pretrain` and `posttrain`, on the ranking of the test items, and on training with
the large catalogue of `stages.bench.large`. Writes `metrics/bench_profile.json`: of each part the share of the time by
kind of operation, and how near its matrix products come to the machine's rate.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from stages.bench import large, training
from stages.bench.epoch_sample import sample_epoch, synthetic_histories
from stages.bench.machine import machine
from stages.bench.matmul import matmul_rate
from stages.data.histories import Batch, Histories
from stages.errors import run_stage
from stages.files import write_json
from stages.models.softmax import negative_sampler
from stages.parallel.device import choose_device
from stages.params import Params, load_params
from stages.tables.markdown import table_lines
from stages.training.lazy_adam import LazyAdam, sparse_tables
from stages.training.next_item import SequenceModel
from stages.training.ranking import rank_users

RESULT = Path("metrics/bench_profile.json")
BATCHES = 16  # of each training
PRODUCTS, REST = "matrix products", "rest"
KINDS = {  # beginnings of the operations' names
    PRODUCTS: "mm addmm bmm baddbmm linear",
    "element by element": (
        "add mul sub div neg exp sqrt lerp gelu ge gt le lt eq ne where masked_fill fill_ zero_ random_ bernoulli"
    ),
    "sums and norms": "sum mean amax max count logsumexp linalg_vector_norm native_layer_norm _softmax",
    "copies": "copy_ cat stack",
    "lookups": "index _index embedding gather scatter coalesce _coalesce sort argsort nonzero unique _unique",
    "optimizer": "_fused_adam_ Optimizer.",
}


def kind_of(operation: str) -> str:
    """The kind of an operation, REST of one that has none. operation: as the profiler names it, `aten::add_`."""
    name = operation.removeprefix("aten::")
    return next((kind for kind, beginnings in KINDS.items() if name.startswith(tuple(beginnings.split()))), REST)


def profiled(call: Callable[[], object], rate: float) -> dict[str, Any]:
    """Seconds of a call by kind of operation, and two shares of `rate`: of the whole call and of its products alone.

    An operation's time is without that of those it calls. rate: floating-point operations a second.
    """
    with FlopCounterMode(display=False) as counter:  # also the warm-up
        call()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        call()
    seconds = dict.fromkeys([*KINDS, REST], 0.0)
    for event in profiler.key_averages():
        seconds[kind_of(event.key)] += event.self_cpu_time_total / 1e6
    total, products = sum(seconds.values()), counter.get_total_flops() / rate
    return {
        "seconds": total,
        "share": {kind: part / total for kind, part in seconds.items()},
        "matmul_share": products / total,
        "matmul_share_of_products": products / seconds[PRODUCTS],
    }


def train(model: SequenceModel, batches: list[Batch], learning_rate: float) -> Callable[[], None]:
    """A function that trains the model on these batches, with the optimizer that `fit` gives it."""
    groups = [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]
    lazy = sparse_tables(model.modules(), sparse=True) if model.sampler else []
    optimizer = LazyAdam(groups, lazy, lr=learning_rate, fused=True)

    def run() -> None:
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            model.loss(*batch)["loss"].backward()
            optimizer.step()

    return run


def batches_of(log: Histories, params: Params, batch_positions: int) -> list[Batch]:
    """BATCHES batches of an epoch."""
    return sample_epoch(
        log, max_length=params.sequence.max_length, batch_positions=batch_positions, seed=params.seed, count=BATCHES
    ).sample


def large_catalogue(params: Params, items: int) -> Callable[[], None]:
    """Training as in `stages.bench.large`, on batches of a synthetic log of this many items."""
    positions = large.LARGE["pretrain"]["batch_positions"]
    log = synthetic_histories(BATCHES * positions, params.seed, items=items, mean_length=100)
    rng = np.random.default_rng(params.seed)
    log = Histories(large.log_uniform_items(rng, items, len(log.values)) + 1, log.offsets)
    model = training.new_sasrec(params.model_copy(update={"dim": large.LARGE["dim"]}), items)
    model.sampler = negative_sampler(large.LARGE["loss"]["negatives"], log.counts(items))
    return train(model, batches_of(log, params, positions), params.pretrain.learning_rate)


def measure(params: Params, large_items: int) -> dict[str, Any]:
    """What RESULT has, but the machine. large_items: of the large catalogue."""
    data, p = training.read_data(), params.pretrain
    sasrec, sicsrec = training.new_models(params, data.items)
    batches = batches_of(data.train, params, p.batch_positions)
    rate = matmul_rate(rows=p.batch_positions, dim=params.dim, columns=(params.dim, data.items))

    def rank() -> None:
        rank_users(sasrec.eval(), data.known, data.test, max_length=params.sequence.max_length, device=training.CPU)

    parts = {
        "pretrain": train(sasrec, batches, p.learning_rate),
        "posttrain": train(sicsrec, batches, params.posttrain.learning_rate),
        "ranking": rank,
        "training, large catalogue": large_catalogue(params, large_items),
    }
    return {
        "dataset": params.dataset,
        "large_items": large_items,
        "matmul_gflops": rate / 1e9,
        "parts": {name: profiled(call, rate) for name, call in parts.items()},
    }


def table(parts: dict[str, Any]) -> str:
    """The shares of the time in percent, as Markdown."""
    cells = [["", *parts]]
    cells += [[kind, *(f"{part['share'][kind]:.0%}" for part in parts.values())] for kind in [*KINDS, REST]]
    cells.append(["rate of the products", *(f"{part['matmul_share_of_products']:.0%}" for part in parts.values())])
    return "\n".join(table_lines(cells))


def main() -> None:
    params = load_params()
    torch.set_num_threads(os.cpu_count() or 1)
    choose_device("cpu")
    result = measure(params, large.SIZES["items"])
    write_json(RESULT, {"machine": machine(training.CPU), **result})
    print(table(result["parts"]))


if __name__ == "__main__":
    run_stage(main)
