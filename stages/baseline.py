"""Another system of Table 4, trained and ranked like SICSRec: `python -m stages.baseline NAME`."""

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file

from stages.data.histories import (
    Histories,
    padded_histories,
    prefix_windows,
    training_batches,
    training_batches_with_users,
    training_windows,
)
from stages.errors import InputError, run_stage
from stages.files import atomic, read_parquet, read_vectors, write_json, write_parquet
from stages.models.baselines.material import Material
from stages.models.recommender import Recommender
from stages.models.systems import SYSTEMS, Scheme
from stages.parallel.device import choose_device
from stages.parallel.distributed import BatchParts
from stages.params import Params, lacks_modality, load_params
from stages.provenance import check_inputs
from stages.training.checkpoints import save_model
from stages.training.fit import IsHopeless
from stages.training.next_item import MakeBatches, TrainingData, train_next_item, training_in_words, validation_metrics
from stages.training.ranking import rank_users

SPLIT = Path("artifacts/split")
TEST = SPLIT / "test.parquet"
EMBEDDINGS = Path("artifacts/embeddings_baselines.parquet")
CURVES = Path("artifacts/curves/baselines")
RANKS = Path("artifacts/ranks")
MODELS = Path("artifacts/baselines")
MOST_ITEMS_IN_PAIRS = 30_000  # the matrix by which ItemKNN scores then takes 3.6 GB


def latest_inputs(histories: Histories, max_length: int) -> np.ndarray:
    """The latest items before each user's last training item, right-padded with 0. → (users, L ≤ max_length).

    A history of one item keeps it.
    """
    lengths = np.maximum(histories.lengths - 1, 1)
    last = histories.offsets[1:][histories.lengths > 1] - 1
    shorter = Histories(np.delete(histories.values, last), np.concatenate([[0], np.cumsum(lengths)]))
    return padded_histories(shorter, np.arange(len(lengths)), max_length)


def batches_of(
    scheme: Scheme, data: TrainingData, *, max_length: int, positions: int, device: torch.device
) -> MakeBatches:
    """A function that makes one epoch's batches for the scheme, each of about `positions` targets."""
    windows = prefix_windows if scheme is Scheme.PREFIXES else training_windows
    batches = training_batches_with_users if scheme is Scheme.POSITIONS_WITH_USERS else training_batches

    def make(rng: np.random.Generator) -> Iterable[BatchParts]:
        return batches(data.histories, windows(data.histories, max_length), positions, rng, device)

    return make


def train(
    name: str,
    params: Params,
    data: TrainingData,
    curves: Path,
    device: torch.device,
    is_hopeless: IsHopeless | None = None,
) -> tuple[Recommender, dict[str, float | int]]:
    """The trained system and a summary of its training. is_hopeless: see `fit`."""
    system, p, sequence = SYSTEMS[name], params.baseline, params.sequence

    def validate(model: Recommender) -> dict[str, float]:
        return validation_metrics(
            model.to(device), data.before_valid, data.valid, monitor=params.monitor, max_length=sequence.max_length,
            device=device,
        )  # fmt: skip

    torch.manual_seed(params.seed)
    material = Material(
        items=data.items,
        dim=params.dim,
        **sequence.model_dump(),
        dropout=params.pretrain.dropout,
        seed=params.seed,
        values=data.histories.values,
        offsets=data.histories.offsets,
        inputs=lambda: latest_inputs(data.histories, sequence.max_length),
        vectors=read_vectors(EMBEDDINGS, list(system.content)),
        validate=lambda candidate: validate(candidate)[params.monitor],
    )
    model = system.build(material)
    if system.scheme is Scheme.COUNTED:
        curves.mkdir(parents=True, exist_ok=True)
        return model.to(device), validate(model)
    if params.loss.negatives != "all" and system.scheme is Scheme.PREFIXES:
        raise InputError(f"loss.negatives={params.loss.negatives}: {name} scores all items, set loss.negatives=all")
    outcome = train_next_item(
        model,
        data,
        p,
        max_length=sequence.max_length,
        negatives=params.loss.negatives,
        monitor=params.monitor,
        seed=params.seed,
        name="baseline",
        identity=[name, params.dim, sequence.model_dump(), params.pretrain.dropout],
        inputs=[EMBEDDINGS],
        curves=curves,
        device=device,
        make_batches=batches_of(
            system.scheme, data, max_length=sequence.max_length, positions=p.batch_positions, device=device
        ),
        is_hopeless=is_hopeless,
    )
    return model, outcome.summary()


def save_empty(name: str) -> None:
    """A file without tensors in place of a model that was not trained."""
    with atomic(MODELS / f"{name}.safetensors") as temporary:
        save_file({}, temporary)


def skip(name: str, why: str) -> None:
    """Write the outputs of a system that is not trained: no ranks, no model, and the reason."""
    (CURVES / name).mkdir(parents=True, exist_ok=True)
    empty = pl.DataFrame(schema=dict.fromkeys(("user", "rank", "rank_filtered"), pl.Int64))
    write_parquet(RANKS / f"{name}.parquet", empty, check_inputs(TEST))
    save_empty(name)
    write_json(RANKS / f"{name}.json", {"skipped": why})


def main() -> str:
    params, name = load_params(), sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in SYSTEMS:
        raise InputError(f"baselines: there is no {name!r}; there are {', '.join(SYSTEMS)}")
    if why := lacks_modality(name, params.modalities):
        skip(name, why)
        return f"skipped: {why}"
    device, data = choose_device(params.device), TrainingData.read(SPLIT, TEST, EMBEDDINGS)
    if name == "itemknn" and data.items > MOST_ITEMS_IN_PAIRS:
        why = f"itemknn counts all pairs of items, too many for {data.items:,} items"
        skip(name, why)
        return f"skipped: {why}"
    test = read_parquet(TEST)

    model, summary = train(name, params, data, CURVES / name, device)
    known = data.before_test(test)
    ranks, ranks_filtered = rank_users(
        model.eval(), known, test["item"].to_numpy(), max_length=params.sequence.max_length, device=device
    )
    write_parquet(
        RANKS / f"{name}.parquet",
        pl.DataFrame({"user": test["user"], "rank": ranks, "rank_filtered": ranks_filtered}),
        data.inputs,
    )
    write_json(RANKS / f"{name}.json", summary)
    save_model(MODELS / f"{name}.safetensors", model, data.inputs)
    if SYSTEMS[name].scheme is Scheme.COUNTED:
        return f"nothing is trained, validation {params.monitor} {summary[params.monitor]:.4f}"
    return training_in_words(summary, params.monitor)


if __name__ == "__main__":
    run_stage(main)
