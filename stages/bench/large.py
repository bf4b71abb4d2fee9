"""Whether large logs and catalogues go through: `python -m stages.bench.large --users U --items N --interactions M`.

Writes a synthetic dataset in NineRec's layout into a temporary folder, runs stages on it, each in a process of its own,
and writes seconds and peak memory to `metrics/bench_large.json`.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from ruamel.yaml import YAML

from stages.bench.machine import machine
from stages.bench.measured import measured
from stages.errors import run_stage
from stages.files import read_json, write_json

NAME = "large"
CHUNK = 2_000_000  # rows made at a time: the generator stays small whatever it writes
LARGE = {  # what a large catalogue asks for, and one epoch of it; Adam goes over the whole item table after each batch
    "dim": 64,
    "loss": {"negatives": 512},
    "pretrain": {"batch_positions": 65_536, "epochs": 1},
}
SECONDS_COVERED = 365 * 86_400  # the timestamps lie in a year


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
            item = pl.Series((items ** rng.random(size)).astype(np.int64) - 1)  # log-uniform ranks
            user = pl.Series((users * (1 - np.sqrt(rng.random(size)))).astype(np.int64))
            time = pl.Series("time", rng.integers(0, SECONDS_COVERED, size))
            frame = pl.select(pl.format("v{}", item), user=pl.format("u{}", user), time=time)
            frame.write_csv(file, include_header=False)


def make_workspace(folder: Path, users: int, items: int, interactions: int) -> None:
    """A folder that stages run in: the dataset under artifacts/raw, and this project's params.yaml with LARGE."""
    raw = folder / "artifacts" / "raw"
    raw.mkdir(parents=True)
    write_dataset(raw, users, items, interactions)
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    params["dataset"] = NAME
    for key, value in LARGE.items():
        params[key] = {**params[key], **value} if isinstance(value, dict) else value
    yaml.dump(params, folder / "params.yaml")


def measured_split(folder: Path) -> dict[str, Any]:
    """Run `split` in a workspace → its seconds, peak_gb, and what of the dataset it kept."""
    result = measured(["-m", "stages.split"], folder)
    split = read_json(folder / "metrics" / "split.json")
    return {**result, **{key: split[key] for key in ("users", "items", "interactions")}}


def measured_pretrain(folder: Path) -> dict[str, Any]:
    """Run an epoch of `pretrain` and its ranking of the validation items → seconds, peak_gb, positions a second."""
    result = measured(["-m", "stages.pretrain"], folder)
    curve = folder / "artifacts/curves/pretrain/plots/metrics/positions_per_second.tsv"
    return {**result, "positions_per_second": float(curve.read_text().split()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--interactions", type=int, default=10_000_000)
    parser.add_argument("--only-split", action="store_true", help="do not train")
    sizes = vars(parser.parse_args())
    only_split = sizes.pop("only_split")
    with tempfile.TemporaryDirectory() as folder:
        make_workspace(Path(folder), **sizes)
        result = {"dataset": sizes, "split": measured_split(Path(folder)), "machine": machine(torch.device("cpu"))}
        if not only_split:
            result["pretrain"] = measured_pretrain(Path(folder)) | {"params": LARGE}
    write_json(Path("metrics/bench_large.json"), result)
    print(Path("metrics/bench_large.json").read_text())


if __name__ == "__main__":
    run_stage(main)
