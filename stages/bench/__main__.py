"""How fast pretraining and ranking are beside RecBole's, here and now: `python -m stages.bench`, after `dvc repro`.

Reads the split in artifacts/, trains RecBole 1.2.1's SASRec and ours of the same widths for an epoch, on the same data
and in batches of as many target positions, and writes `metrics/bench.json`. Ratios above 1: ours is faster.
"""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from stages.bench import beside_recbole
from stages.bench.machine import machine
from stages.data.histories import Histories, training_batches, training_windows
from stages.errors import run_stage
from stages.files import read_parquet, write_json
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.params import Params, load_params
from stages.training.device import choose_device
from stages.training.fit import Plan, fit
from stages.training.ranking import rank_users

SPLIT = Path("artifacts/split")
EPOCHS = 3  # of ours, for one of RecBole's


def our_seconds(params: Params, train: Histories, known: Histories, test: np.ndarray, items: int) -> dict[str, float]:
    """Seconds of an epoch, the mean of EPOCHS, and of ranking all test items."""
    p, device = params.pretrain, choose_device("cpu")
    torch.manual_seed(params.seed)
    model = Sasrec(SasrecConfig(items, params.dim, p.layers, p.heads, p.dropout, p.max_length))
    windows = training_windows(train, p.max_length)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        fit(
            model,
            lambda epoch: training_batches(train, windows, p.batch_positions, np.random.default_rng(epoch)),
            dict,
            Plan(EPOCHS, EPOCHS, None, p.learning_rate, params.seed),
            device,
            Path(folder) / "curves",
            Path(folder) / "state",
        )
        trained = time.perf_counter()
        rank_users(model, known, test, p.max_length, device)
        return {"epoch": (trained - begin) / EPOCHS, "evaluate": time.perf_counter() - trained}


def main() -> None:
    params, threads = load_params(), os.cpu_count() or 1
    torch.set_num_threads(threads)
    train = Histories.from_frame(read_parquet(SPLIT / "train.parquet"))
    valid, test = (read_parquet(SPLIT / f"{name}.parquet")["item"].to_numpy() for name in ("valid", "test"))
    known = train.extended(valid)
    items = len(read_parquet(SPLIT / "items.parquet"))
    usual = min(int(np.percentile(known.lengths, 99)), params.pretrain.max_length)  # holds 99 % of the histories

    ours = our_seconds(params, train, known, test, items)
    with tempfile.TemporaryDirectory() as folder:
        theirs = {}
        for name, length in (("len50", params.pretrain.max_length), ("cut", usual)):
            place = Path(folder) / f"{params.dataset}_{name}"
            beside_recbole.write_atomic_files(place, train, valid.tolist(), test.tolist(), length)
            theirs[name] = beside_recbole.measure(place, params, length, threads)
    result = {
        "dataset": params.dataset,
        "pretrain_vs_recbole_len50": theirs["len50"]["epoch"] / ours["epoch"],
        "pretrain_vs_recbole_cut": theirs["cut"]["epoch"] / ours["epoch"],
        "cut": usual,
        "evaluation_vs_recbole": theirs["len50"]["evaluate"] / ours["evaluate"],
        "seconds": {"ours": ours, **{f"recbole_{name}": seconds for name, seconds in theirs.items()}},
        "machine": machine(torch.device("cpu")),
    }
    write_json(Path("metrics/bench.json"), result)
    print(Path("metrics/bench.json").read_text())


if __name__ == "__main__":
    run_stage(main)
