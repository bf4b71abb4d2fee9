"""How much faster a CPU trains in bfloat16: `python -m stages.bench.precision`, after `dvc repro`, a minute.

Both steps of training take the same batches in float32 and in bfloat16, in turn. Only processors with instructions for
bfloat16 (AMX of Intel's Xeons since 2023, AVX-512 BF16) gain from it. Writes `metrics/bench_precision.json`.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stages import allow_bfloat16
from stages.bench import training
from stages.bench.machine import machine
from stages.bench.profile import batches_of, train
from stages.errors import run_stage
from stages.files import write_json
from stages.parallel.device import Precision, choose_device, reduced_precision, set_precision
from stages.params import Params, load_params

RESULT = Path("metrics/bench_precision.json")
ROUNDS = 6  # of which the fastest counts, in each precision
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def fastest(call: Callable[[], None]) -> dict[str, float]:
    """Seconds of the fastest of ROUNDS calls in each precision."""
    seconds: dict[str, float] = dict.fromkeys(PRECISIONS, float("inf"))
    for _ in range(ROUNDS):
        for precision in PRECISIONS:
            set_precision(precision, training.CPU)
            began = time.perf_counter()
            with reduced_precision(training.CPU):
                call()
            seconds[precision] = min(seconds[precision], time.perf_counter() - began)
    return seconds


def measure(params: Params) -> dict[str, Any]:
    """What RESULT has, but the machine."""
    data = training.read_data()
    sasrec, sicsrec = training.new_models(params, data.items)
    batches = batches_of(data.train, params, params.pretrain.batch_positions)
    seconds = {
        "pretrain": fastest(train(sasrec, batches, params.pretrain.learning_rate)),
        "posttrain": fastest(train(sicsrec, batches, params.posttrain.learning_rate)),
    }
    return {
        "dataset": params.dataset,
        "seconds": seconds,
        "float32_vs_bfloat16": {step: each["float32"] / each["bfloat16"] for step, each in seconds.items()},
    }


def main() -> None:
    allow_bfloat16()  # before anything is computed, also in float32
    params = load_params()
    torch.set_num_threads(os.cpu_count() or 1)
    choose_device("cpu")
    result = measure(params)
    write_json(RESULT, {"machine": machine(training.CPU), **result})
    for step, ratio in result["float32_vs_bfloat16"].items():
        print(f"{step}: {ratio:.2f} times as fast in bfloat16 as in float32")


if __name__ == "__main__":
    run_stage(main)
