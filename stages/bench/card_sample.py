"""The sample's whole DAG on the device and on the CPU, in two temporary clones at once, and whether they agree."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from stages.bench.workspace import write_params
from stages.files import read_json
from stages.params import OURS
from stages.rank_files import PROTOCOLS
from stages.training.metrics import per_user_metrics
from stages.training.statistics import interval

COMMITTED = Path("metrics/evaluate.json")
METRIC = "ndcg@10"


def measure_sample(device: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds of `dvc repro` by device, and the agreement of the metrics.

    changes: to params.yaml, besides `device`. Raises RuntimeError with the last lines of `dvc repro` when it fails.
    """
    with TemporaryDirectory() as folder:
        clones = {name: Path(folder) / name for name in ("device", "cpu")}
        runs = {
            name: start_repro(clone, dict(changes) | {"device": device if name == "device" else "cpu"})
            for name, clone in clones.items()
        }
        begin = time.perf_counter()
        result: dict[str, Any] = {}
        for name, run in runs.items():
            output, _ = run.communicate()
            if run.returncode:
                raise RuntimeError(f"dvc repro on {name}: " + " | ".join(output.strip().splitlines()[-3:]))
            result[f"{name}_seconds"] = time.perf_counter() - begin
        return result | agreement(clones["device"], clones["cpu"], COMMITTED)


def start_repro(clone: Path, changes: dict[str, Any]) -> "subprocess.Popen[str]":
    """Start `dvc repro` in a clone of this project's last commit, nothing of it cached."""
    subprocess.run(["git", "clone", "--quiet", ".", str(clone)], check=True, capture_output=True)
    (clone / "dvc.lock").unlink(missing_ok=True)
    write_params(clone, changes)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("DVC_ROOT", "PYTHONPATH"))
    } | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(clone.parent / f"cache_{clone.name}")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"], cwd=clone, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def agreement(device: Path, cpu: Path, committed: Path) -> dict[str, Any]:
    """ndcg@10 of the test items by both runs, and whether they can be told apart.

    device, cpu: clones. committed: the metrics in git.
    difference_interval: 95 % bootstrap interval of the mean difference over users. within: whether it has 0 in it.
    within_committed: whether SICSRec's ndcg@10 on the device is in the committed interval.
    """
    result: dict[str, Any] = {}
    for system in OURS:
        left, right = (pl.read_parquet(clone / f"artifacts/ranks/{system}.parquet") for clone in (device, cpu))
        for protocol, column in PROTOCOLS.items():
            here, there = (per_user_metrics(frame[column].to_numpy())[METRIC] for frame in (left, right))
            low, high = interval(here - there, resamples=1000, seed=0)
            result[f"{system}_{protocol}"] = {
                "device": float(here.mean()), "cpu": float(there.mean()), "difference_interval": [low, high],
                "within": low <= 0 <= high,
            }  # fmt: skip
    low, high = read_json(committed)["interval"][METRIC]
    return result | {"within_committed": low <= result["sicsrec_kept"]["device"] <= high}
