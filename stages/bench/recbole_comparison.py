"""RecBole 1.2.1's SASRec on the same split, with the same sizes and batch, in its own environment under `.cache/`."""

import tempfile
from pathlib import Path
from typing import Any

from stages.bench import training
from stages.bench.peer_environment import environment, run_in_environment
from stages.bench.results import Result
from stages.data.histories import Histories
from stages.params import Params

SCORE_EPOCHS = 3  # epochs of RecBole whose best validation score ours has to reach
HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token\n"


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
    return run_in_environment("recbole", settings, folder.parent)


def compare_with_recbole(params: Params, data: training.Data, threads: int) -> Result:
    """Ours and RecBole, its histories padded to `max_length` and to `training.common_length`.

    Raises Unavailable.
    """
    environment("recbole")
    sasrec = training.new_sasrec(params, data.items)
    epoch, ranking = training.epoch_seconds(sasrec, params, data), training.ranking_seconds(sasrec, params, data)
    cut = training.common_length(params, data)
    theirs = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, length, score_epochs in (("len50", params.sequence.max_length, 0), ("cut", cut, SCORE_EPOCHS)):
            place = Path(folder) / f"{params.dataset}_{name}"
            write_atomic_files(place, data.train, valid=data.valid.tolist(), test=data.test.tolist(), length=length)
            theirs[name] = measure(place, params, length=length, threads=threads, score_epochs=score_epochs)
    long, short = theirs["len50"], theirs["cut"]
    result: Result = {
        "beside_recbole_epoch_seconds": epoch,
        "ranking_seconds": ranking,
        "recbole_cut": cut,
        "recbole_len50_epoch_seconds": long["epoch"],
        "recbole_cut_epoch_seconds": short["epoch"],
        "recbole_len50_ranking_seconds": long["evaluate"],
        "recbole_cut_ranking_seconds": short["evaluate"],
        "pretrain_vs_recbole_len50": long["epoch"] / epoch,
        "pretrain_vs_recbole_cut": short["epoch"] / epoch,
        "evaluation_vs_recbole": long["evaluate"] / ranking,
    }
    return result | _time_to_score(params, data, goal=short["score"], their_seconds=short["score_seconds"])


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
