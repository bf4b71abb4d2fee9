"""Time and memory of stages on a large dataset: `python -m stages.bench.large --users U --items N --interactions M`.

Writes a synthetic dataset in NineRec's layout into a temporary folder, runs each stage on it in its own process, and
writes seconds and peak memory to `metrics/bench_large.json`.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Int

from stages.bench.machine import machine
from stages.bench.subprocess_usage import subprocess_usage
from stages.bench.workspace import write_params
from stages.data.histories import Histories, training_windows
from stages.errors import run_stage
from stages.files import read_json, read_parquet, write_json
from stages.params import load_params

NAME = "large"
CHUNK = 2_000_000  # rows generated at a time, to bound the memory
# params for a large catalogue, and one epoch; batches of 65,536 take 8.5 GB and no less time
LARGE: dict[str, Any] = {
    "modalities": ["id", "text"],
    "dim": 64,
    "loss": {"negatives": 512},
    "pretrain": {"batch_positions": 16_384, "epochs": 1},
}
SIZES = {"users": 100_000, "items": 1_000_000, "interactions": 10_000_000}
RESULT = Path("metrics/bench_large.json")
SECONDS_COVERED = 365 * 86_400  # timestamps are spread over a year


def log_uniform_items(rng: np.random.Generator, items: int, size: int) -> Int[np.ndarray, " size"]:
    """Item numbers from 0, of which number r has a share of about 1/r (Zipf's law)."""
    return (items ** rng.random(size)).astype(np.int64) - 1


def write_dataset(folder: Path, users: int, items: int, interactions: int, seed: int = 0) -> None:
    """Write `large_pair.csv` (item, user, timestamp) and `large_item.csv` into `folder`, in random order of events.

    The item of rank r has a share of 1/r of the events (Zipf's law); a user has up to twice the mean number of events.
    """
    rng = np.random.default_rng(seed)
    with (folder / f"{NAME}_item.csv").open("wb") as file:
        for begin in range(0, items, CHUNK):
            number = pl.int_range(begin, min(begin + CHUNK, items), eager=True)
            frame = pl.select(
                pl.format("v{}", number), zh=pl.format("视频 {}", number), en=pl.format("Video {}", number)
            )
            frame.write_csv(file, include_header=False)
    with (folder / f"{NAME}_pair.csv").open("wb") as file:
        for begin in range(0, interactions, CHUNK):
            size = min(CHUNK, interactions - begin)
            item = pl.Series(log_uniform_items(rng, items, size))
            user = pl.Series((users * (1 - np.sqrt(rng.random(size)))).astype(np.int64))
            time = pl.Series("time", rng.integers(0, SECONDS_COVERED, size))
            frame = pl.select(pl.format("v{}", item), user=pl.format("u{}", user), time=time)
            frame.write_csv(file, include_header=False)


def make_workspace(folder: Path, users: int, items: int, interactions: int) -> None:
    """Write what stages need into `folder`: the dataset in artifacts/raw, and params.yaml changed as in LARGE."""
    raw = folder / "artifacts" / "raw"
    raw.mkdir(parents=True)
    write_dataset(raw, users, items, interactions)
    write_params(folder, {"dataset": NAME, **LARGE})


def measure_split(folder: Path) -> dict[str, Any]:
    """Run `split` in a workspace → seconds, peak_gb, and the size of the dataset after filtering."""
    result = subprocess_usage(["-m", "stages.split"], folder)
    split = read_json(folder / "metrics" / "split.json")
    return {**result, **{key: split[key] for key in ("users", "items", "interactions")}}


def measure_pretrain(folder: Path) -> dict[str, Any]:
    """Run one epoch of `pretrain` with its validation → seconds, peak_gb, positions_per_second of the epoch alone.

    ranking_seconds: the rest, which is the ranking of every user's validation item and the start-up.
    """
    result = subprocess_usage(["-m", "stages.pretrain"], folder)
    curve = folder / "artifacts/curves/pretrain/plots/metrics/positions_per_second.tsv"
    rate = float(curve.read_text().split()[-1])
    histories = Histories.from_frame(read_parquet(folder / "artifacts/split/train.parquet"))
    windows = training_windows(histories, load_params(folder / "params.yaml").sequence.max_length)
    epoch = int((windows.end - windows.start).sum()) / rate
    return {**result, "positions_per_second": rate, "ranking_seconds": result["seconds"] - epoch}


def measure_large(sizes: dict[str, int], *, only_split: bool = False) -> dict[str, Any]:
    """Seconds and peak memory of the stages on a synthetic log, as in `metrics/bench_large.json`. sizes: as SIZES."""
    with tempfile.TemporaryDirectory() as folder:
        make_workspace(Path(folder), **sizes)
        result = {"dataset": sizes, "split": measure_split(Path(folder)), "machine": machine(torch.device("cpu"))}
        if not only_split:
            result["pretrain"] = measure_pretrain(Path(folder)) | {"params": LARGE}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m stages.bench.large", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--only-split", action="store_true", help="do not run pretrain")
    sizes = vars(parser.parse_args())
    only_split = sizes.pop("only_split")
    write_json(RESULT, measure_large(sizes, only_split=only_split))
    print(RESULT.read_text())


if __name__ == "__main__":
    run_stage(main, options=True)
