"""RecBole 1.2.1's SASRec on the same split, with the same sizes and batch, in its own environment under `.cache/`."""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np

from stages.bench import training
from stages.bench.results import Result
from stages.data.histories import Histories
from stages.files import cache_folder
from stages.params import Params

HERE = Path(__file__).parent
SCORE_EPOCHS = 3  # epochs of RecBole whose best validation score ours has to reach
HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token\n"


class Unavailable(Exception):
    """RecBole could not be installed."""


def environment() -> Path:
    """Python of an environment with `recbole.txt` installed, created on first use. Raises Unavailable."""
    folder = cache_folder("recbole").absolute()
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        try:
            venv.create(folder, with_pip=True, clear=True)
        except subprocess.CalledProcessError as error:  # a Python without ensurepip
            raise Unavailable(f"venv could not create {folder}: {error}") from error
        command = [str(python), "-m", "pip", "install", "--quiet", "-r", str(HERE / "recbole.txt")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip() or f"exit status {done.returncode}"
            raise Unavailable(f"pip could not install it: {reason.splitlines()[-1]}")
        (folder / "ready").touch()
    return python


def write_atomic_files(folder: Path, train: Histories, *, valid: list[int], test: list[int], length: int) -> None:
    """Write RecBole's benchmark files: each prefix of a training history with its next item, and the held-out items."""
    folder.mkdir(parents=True, exist_ok=True)
    histories = [train.values[a:b].tolist() for a, b in zip(train.offsets[:-1], train.offsets[1:], strict=True)]
    rows = {
        "train": [(user, h[:n], h[n]) for user, h in enumerate(histories) for n in range(1, len(h))],
        "valid": [(user, h, valid[user]) for user, h in enumerate(histories)],
        "test": [(user, [*h, valid[user]], test[user]) for user, h in enumerate(histories)],
    }
    for name, part in rows.items():
        lines = (f"{user}\t{' '.join(map(str, items[-length:]))}\t{target}\n" for user, items, target in part)
        (folder / f"{folder.name}.{name}.inter").write_text(HEADER + "".join(lines))


def measure(folder: Path, params: Params, *, length: int, threads: int, score_epochs: int) -> dict[str, float]:
    """Seconds of an epoch and of an evaluation of the test items, with histories padded to `length`.

    If score_epochs > 0, RecBole also trains for that many epochs with validation after each: `score` is the best
    ndcg@10, `score_seconds` the time until then.
    """
    p = params.pretrain
    settings: dict[str, Any] = {
        "threads": threads, "score_epochs": score_epochs,
        "dataset": folder.name, "data_path": str(folder.parent.resolve()), "use_gpu": False,
        "benchmark_filename": ["train", "valid", "test"], "alias_of_item_id": ["item_id_list"],
        "train_neg_sample_args": None, "load_col": {"inter": ["user_id", "item_id_list", "item_id"]},
        "USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "MAX_ITEM_LIST_LENGTH": length,
        "n_layers": params.sequence.layers, "n_heads": params.sequence.heads,
        "hidden_size": params.dim, "inner_size": params.dim,
        "hidden_dropout_prob": p.dropout, "attn_dropout_prob": p.dropout, "loss_type": "CE",
        "train_batch_size": p.batch_positions, "eval_batch_size": 1024, "epochs": 1, "eval_step": 0,
        "eval_args": {"split": {"LS": "valid_and_test"}, "mode": "full", "order": "TO"},
        "metrics": ["Hit", "NDCG"], "topk": [5, 10], "valid_metric": "NDCG@10", "show_progress": False,
        "learning_rate": p.learning_rate, "seed": params.seed, "state": "ERROR",
    }  # fmt: skip
    command = [str(environment()), str(HERE / "recbole_runner.py"), json.dumps(settings)]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
        done.check_returncode()
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def compare_with_recbole(params: Params, data: training.Data, threads: int) -> Result:
    """Ours and RecBole, its histories padded to `max_length` and to the 99th percentile of their lengths.

    Raises Unavailable.
    """
    environment()
    sasrec = training.new_sasrec(params, data.items)
    epoch, ranking = training.epoch_seconds(sasrec, params, data), training.ranking_seconds(sasrec, params, data)
    percentile = min(int(np.percentile(data.known.lengths, 99)), params.sequence.max_length)
    theirs = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, length, score_epochs in (("len50", params.sequence.max_length, 0), ("cut", percentile, SCORE_EPOCHS)):
            place = Path(folder) / f"{params.dataset}_{name}"
            write_atomic_files(place, data.train, valid=data.valid.tolist(), test=data.test.tolist(), length=length)
            theirs[name] = measure(place, params, length=length, threads=threads, score_epochs=score_epochs)
    len50, cut = theirs["len50"], theirs["cut"]
    result: Result = {
        "beside_recbole_epoch_seconds": epoch,
        "ranking_seconds": ranking,
        "recbole_cut": percentile,
        "recbole_len50_epoch_seconds": len50["epoch"],
        "recbole_cut_epoch_seconds": cut["epoch"],
        "recbole_len50_ranking_seconds": len50["evaluate"],
        "recbole_cut_ranking_seconds": cut["evaluate"],
        "pretrain_vs_recbole_len50": len50["epoch"] / epoch,
        "pretrain_vs_recbole_cut": cut["epoch"] / epoch,
        "evaluation_vs_recbole": len50["evaluate"] / ranking,
    }
    return result | _time_to_score(params, data, goal=cut["score"], their_seconds=cut["score_seconds"])


def _time_to_score(params: Params, data: training.Data, *, goal: float, their_seconds: float) -> Result:
    if (seconds := training.seconds_to_reach(params, data, goal)) is None:
        print(f"time to RecBole's score: not measured, ours stopped below its validation ndcg@10 of {goal}")
        return {}
    return {
        "validation_ndcg@10_to_reach": goal,
        "to_score_seconds": seconds,
        "recbole_cut_to_score_seconds": their_seconds,
        "to_score_vs_recbole_cut": their_seconds / seconds,
    }
