"""What this project does on a GPU, in under eight minutes: `python -m stages.bench.card`, on a machine that has one.

Needs the requirements and nothing else: no dataset, no weights, no earlier `dvc repro`. Every part runs as a process of
its own within its time budget; what it measured, or why it failed, is in `metrics/bench_card.json` as soon as it ends.
`--device cpu --tiny` tries the script itself, in a minute or two; `--result` names another file then.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stages.bench import card_parts
from stages.bench.card_parts import FULL, TINY, Sizes
from stages.bench.card_sample import measure_sample
from stages.bench.machine import machine
from stages.bench.subprocess_usage import ROOT
from stages.errors import run_stage
from stages.files import read_json, write_json
from stages.parallel.device import choose_device
from stages.params import Params, load_params

RESULT = Path("metrics/bench_card.json")
TINY_SAMPLE = {
    "dim": 16, "download": {"sample_users": 80, "sample_items": 40, "sample_topics": 3}, "sft": {"epochs": 1},
    "pretrain": {"epochs": 1}, "posttrain": {"epochs": 1}, "evaluate": {"bootstrap": 100}, "baselines": [],
}  # fmt: skip


def sample(params: Params, device: torch.device, sizes: Sizes) -> dict[str, Any]:
    """The sample's DAG on the device beside the CPU."""
    return measure_sample(str(device), TINY_SAMPLE if sizes is TINY else {})


@dataclass(frozen=True)
class Part:
    """A part and the seconds after which it is stopped."""

    measure: Callable[[Params, torch.device, Sizes], dict[str, Any]]
    seconds: float


PARTS = {
    "training": Part(card_parts.measure_training, 75),
    "host_syncs": Part(card_parts.measure_syncs, 25),
    "large": Part(card_parts.measure_large, 30),
    "encoders": Part(card_parts.measure_encoders, 70),
    "compile": Part(card_parts.measure_compile, 90),
    "sample": Part(sample, 170),
}  # 460 seconds in all


def run_part(name: str, arguments: list[str], seconds: float) -> dict[str, Any]:
    """Run one part as a child process → what it measured, or its `error`; and its `part_seconds`."""
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "stages.bench.card", "--part", name, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as child:  # fmt: skip
        try:
            output, errors = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            result: dict[str, Any] = {"error": f"stopped after {seconds:g} s"}
        else:
            said = (errors.strip() or f"exit status {child.returncode}").splitlines()[-1]
            result = {"error": said} if child.returncode else json.loads(output.splitlines()[-1])
        finally:
            with suppress(ProcessLookupError):  # nothing of it runs any more
                os.killpg(child.pid, signal.SIGKILL)  # also what it has started, such as `dvc repro`
    return result | {"part_seconds": time.perf_counter() - begin}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m stages.bench.card", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="default: %(default)s")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="measure only these parts")
    parser.add_argument("--result", type=Path, default=RESULT, help="default: %(default)s")
    parser.add_argument(
        "--budget", type=float, default=1.0, help="multiply the time budgets by this, on a slow machine"
    )
    parser.add_argument("--part", choices=PARTS, help="measure one part in this process and print it as JSON")
    options = parser.parse_args()
    device = choose_device(options.device)
    if options.part:
        print(json.dumps(PARTS[options.part].measure(load_params(), device, TINY if options.tiny else FULL)))
        return
    arguments = ["--device", options.device, *(["--tiny"] if options.tiny else [])]
    result: dict[str, Any] = {"machine": machine(device), "tiny": options.tiny}
    if len(options.only) < len(PARTS) and options.result.is_file():
        earlier = read_json(options.result)
        result = earlier if result.items() <= earlier.items() else result
    for name in options.only:
        result[name] = run_part(name, arguments, PARTS[name].seconds * options.budget)
        write_json(options.result, result)
        print(name, json.dumps(result[name]), flush=True)


if __name__ == "__main__":
    run_stage(main, options=True)
