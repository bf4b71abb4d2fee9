"""Another system of Table 4, trained and ranked exactly like SICSRec: `python -m stages.baseline NAME`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import nn

from stages.data.histories import (
    Histories,
    prefix_windows,
    training_batches,
    training_batches_with_users,
    training_windows,
)
from stages.errors import InputError, run_stage
from stages.files import read_parquet, read_vectors, write_json, write_parquet
from stages.models.baselines.missrec import MissRec
from stages.models.softmax import negative_sampler
from stages.models.systems import SYSTEMS, Material, Scheme, System
from stages.params import Params, load_params
from stages.parallel.distributed import Parts, own_rows
from stages.training.checkpoints import state_path
from stages.parallel.device import choose_device
from stages.training.fit import Plan, fit
from stages.training.ranking import mean_metrics, rank_users

SPLIT = Path("artifacts/split")
EMBEDDINGS = Path("artifacts/embeddings_baselines.parquet")
CURVES = Path("artifacts/curves/baselines")
RANKS = Path("artifacts/ranks")
MOST_ITEMS_IN_PAIRS = 30_000  # ItemKNN then takes 11 GB


def batches(
    model: nn.Module, system: System, histories: Histories, params: Params, epoch: int, device: torch.device
) -> Iterator[Parts]:
    """One epoch of the system's own kind of batches, each of as many targets."""
    positions, length = params.baseline.batch_positions, params.pretrain.max_length
    rng = np.random.default_rng([params.seed, epoch])
    if isinstance(model, MissRec):
        model.discover_interests(params.seed + epoch)
    if system.scheme is Scheme.PREFIXES:
        return training_batches(histories, prefix_windows(histories, length), positions, rng, device)
    windows = training_windows(histories, length)
    if system.scheme is Scheme.POSITIONS_WITH_USERS:
        return training_batches_with_users(histories, windows, positions, rng, device)
    return training_batches(histories, windows, positions, rng, device)


def train(
    name: str, params: Params, histories: Histories, valid: np.ndarray, items: int, device: torch.device
) -> tuple[nn.Module, dict[str, float | int]]:
    """The trained system, and how it went."""
    system, p, base = SYSTEMS[name], params.baseline, params.pretrain

    def validation(model: nn.Module) -> dict[str, float]:
        return mean_metrics(rank_users(model, histories, valid, base.max_length, device)[0])

    torch.manual_seed(params.seed)
    model = system.build(
        Material(
            items, params.dim, base.layers, base.heads, base.dropout, base.max_length, params.seed,
            histories.values, histories.offsets, read_vectors(EMBEDDINGS, list(system.content)),
            lambda candidate: validation(candidate.to(device))["ndcg@10"],
        )
    )  # fmt: skip
    curves = CURVES / name
    if system.scheme is Scheme.COUNTED:
        curves.mkdir(parents=True, exist_ok=True)
        return model.to(device), validation(model.to(device))
    if params.loss.negatives != "all" and system.scheme is Scheme.PREFIXES:
        raise InputError(f"loss.negatives={params.loss.negatives}: {name} scores all items, set loss.negatives=all")
    model.sampler = negative_sampler(params.loss.negatives, histories.counts(items))
    inputs = [SPLIT / "train.parquet", SPLIT / "valid.parquet", EMBEDDINGS]
    settings = [name, p.model_dump(), base.model_dump(), params.loss.model_dump(), params.dim, params.seed]
    outcome = fit(
        model,
        lambda epoch: own_rows(batches(model, system, histories, params, epoch, device)),
        lambda: validation(model),
        Plan(p.epochs, p.patience, "ndcg@10", p.learning_rate, params.seed),
        device,
        curves,
        state_path("baseline", settings, inputs),
    )
    return model, outcome.summary()


def skip(name: str, why: str) -> None:
    """The outputs of a system that was not trained: no ranks, and the reason."""
    print(f"skipped: {why}")
    (CURVES / name).mkdir(parents=True, exist_ok=True)
    write_parquet(
        RANKS / f"{name}.parquet", pl.DataFrame(schema=dict.fromkeys(("user", "rank", "rank_filtered"), pl.Int64))
    )
    write_json(RANKS / f"{name}.json", {"skipped": why})


def main() -> None:
    params, name = load_params(), sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in SYSTEMS:
        raise InputError(f"baselines: there is no {name!r}; there are {', '.join(SYSTEMS)}")
    if absent := [modality for modality in SYSTEMS[name].content if modality not in params.modalities]:
        why = f"{name} reads {absent[0]}, which modalities={list(params.modalities)} lacks"
        if params.baseline.absent == "error":
            raise InputError(f"baselines: {why}: take it off, or set baseline.absent=skip")
        skip(name, why)
        return
    device = choose_device(params.device)
    items = len(read_parquet(SPLIT / "items.parquet"))
    if name == "itemknn" and items > MOST_ITEMS_IN_PAIRS:
        raise InputError(f"baselines: itemknn counts all pairs of items, too many for {items:,} items: take it off")
    histories = Histories.from_frame(read_parquet(SPLIT / "train.parquet"))
    valid, test = (read_parquet(SPLIT / f"{part}.parquet") for part in ("valid", "test"))

    model, summary = train(name, params, histories, valid["item"].to_numpy(), items, device)
    known = histories.extended(valid["item"].to_numpy())  # what is known before the test item
    model.eval()
    kept, filtered = rank_users(model, known, test["item"].to_numpy(), params.pretrain.max_length, device)
    write_parquet(
        RANKS / f"{name}.parquet",
        pl.DataFrame({"user": test["user"], "rank": kept, "rank_filtered": filtered}),
    )
    write_json(RANKS / f"{name}.json", summary)


if __name__ == "__main__":
    run_stage(main)
