"""RecTools 0.19's SASRec on the same split, in its own environment under `.cache/`: seconds of an epoch, and accuracy.

It trains all positions of a history at once by a softmax over all items, as ours does, with the same widths. Its batch
is a number of users: as many as have `batch_positions` targets on average, so that an epoch has as many steps as ours.
It ranks the items that occur in training; a target that does not is counted as missed, as it practically is in ours.
"""

import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from stages.bench import training
from stages.bench.peer_environment import environment, run_in_environment
from stages.bench.results import Result
from stages.params import Params


def write_interactions(path: Path, data: training.Data) -> None:
    """Write user, item and part (train, valid or test) of every interaction, those of a user oldest first."""
    users = np.arange(len(data.train.lengths))
    parts = {
        "train": (np.repeat(users, data.train.lengths), data.train.values),
        "valid": (users, data.valid),
        "test": (users, data.test),
    }
    frames = [pl.DataFrame({"user": user, "item": item, "part": part}) for part, (user, item) in parts.items()]
    pl.concat(frames, how="vertical_relaxed").write_csv(path)


def measure(
    interactions: Path, params: Params, data: training.Data, *, length: int, threads: int, epochs: int, patience: int
) -> dict[str, float]:
    """Median seconds of an epoch and the number of epochs, with histories padded to `length`.

    With a patience above 0 also `ndcg10` and `ndcg10_filtered` of the test items, by the epoch of the best validation.
    """
    p, lengths = params.pretrain, data.train.lengths
    targets_per_user = (lengths - 1).sum() / (lengths > 1).sum()
    settings = {
        "interactions": str(interactions), "threads": threads, "epochs": epochs, "patience": patience,
        "seed": params.seed, "n_blocks": params.sequence.layers, "n_heads": params.sequence.heads,
        "n_factors": params.dim, "dropout_rate": p.dropout, "session_max_len": length, "lr": p.learning_rate,
        "batch_size": round(p.batch_positions / targets_per_user),
    }  # fmt: skip
    return run_in_environment("rectools", settings, interactions.parent)


def compare_with_rectools(params: Params, data: training.Data, threads: int) -> Result:
    """Ours and RecTools, its histories padded to `max_length` (one epoch) and to `training.common_length`.

    With the latter both are trained until validation stops them, for their accuracy on the test items.
    Raises Unavailable.
    """
    environment("rectools")
    p, cut = params.pretrain, training.common_length(params, data)
    epoch = training.epoch_seconds(training.new_sasrec(params, data.items), params, data)
    ours = training.ndcg_of_test_items(params, data)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "interactions.csv"
        write_interactions(file, data)
        sizes = {"len50": (params.sequence.max_length, 1, 0), "cut": (cut, p.epochs, p.patience)}
        len50, theirs = (
            measure(file, params, data, length=length, threads=threads, epochs=epochs, patience=patience)
            for length, epochs, patience in sizes.values()
        )
    return {
        "beside_rectools_epoch_seconds": epoch,
        "rectools_cut": cut,
        "rectools_len50_epoch_seconds": len50["epoch"],
        "rectools_cut_epoch_seconds": theirs["epoch"],
        "rectools_cut_epochs": theirs["epochs"],
        "pretrain_vs_rectools_len50": len50["epoch"] / epoch,
        "pretrain_vs_rectools_cut": theirs["epoch"] / epoch,
        "rectools_ndcg10": theirs["ndcg10"],
        "rectools_ndcg10_filtered": theirs["ndcg10_filtered"],
        "sasrec_ndcg10": ours["kept"],
        "sasrec_ndcg10_filtered": ours["filtered"],
    }
