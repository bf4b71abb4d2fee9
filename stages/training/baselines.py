"""Training of the other systems of Table 4."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from stages.data.histories import (
    Histories,
    padded_histories,
    prefix_windows,
    training_batches,
    training_batches_with_users,
    training_windows,
)
from stages.errors import InputError
from stages.files import read_vectors, write_json
from stages.models.baselines.material import Material
from stages.models.recommender import Recommender
from stages.models.systems import SYSTEMS, Scheme
from stages.parallel.distributed import BatchParts
from stages.params import Params
from stages.training.fit import IsHopeless
from stages.training.next_item import MakeBatches, TrainingData, train_next_item, validation_metrics

EMBEDDINGS = Path("artifacts/embeddings_baselines.parquet")


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


def dropout_of(name: str, params: Params) -> float:
    """The system's dropout: `baseline.dropout`, or if that is empty its own."""
    own = SYSTEMS[name].dropout
    chosen = (params.baseline.dropout, own, params.pretrain.dropout)
    return next(value for value in chosen if value is not None)


def train(
    name: str,
    params: Params,
    data: TrainingData,
    curves: Path,
    device: torch.device,
    *,
    epochs: int | None = None,
    is_hopeless: IsHopeless | None = None,
) -> tuple[Recommender, dict[str, float | int]]:
    """The trained system and a summary of its training.

    epochs: how many to train, without validation; None: validation stops training. is_hopeless: see `fit`.
    """
    system, p, sequence = SYSTEMS[name], params.baseline, params.sequence

    def validate(model: Recommender) -> dict[str, float]:
        return validation_metrics(
            model.to(device), data.before_valid, data.valid, monitor=params.monitor, max_length=sequence.max_length,
            device=device,
        )  # fmt: skip

    torch.manual_seed(params.seed)
    dropout = dropout_of(name, params)
    material = Material(
        items=data.items,
        dim=params.dim,
        **sequence.model_dump(),
        dropout=dropout,
        seed=params.seed,
        values=data.histories.values,
        offsets=data.histories.offsets,
        inputs=lambda: latest_inputs(data.histories, sequence.max_length),
        vectors=read_vectors(EMBEDDINGS, list(system.content)),
        validate=lambda candidate: validate(candidate)[params.monitor],
    )
    model = system.build(material)
    if system.scheme is Scheme.COUNTED:
        summary = validate(model)
        write_json(curves / "summary.json", summary)  # DVC warns of empty folders
        return model.to(device), summary
    if params.loss.negatives != "all" and system.scheme is Scheme.PREFIXES:
        raise InputError(f"loss.negatives={params.loss.negatives}: {name} scores all items, set loss.negatives=all")
    outcome = train_next_item(
        model,
        data,
        p if epochs is None else p.model_copy(update={"epochs": epochs}),
        max_length=sequence.max_length,
        negatives=params.loss.negatives,
        monitor=params.monitor if epochs is None else None,
        seed=params.seed,
        name="baseline",
        identity=[name, params.dim, sequence.model_dump(), dropout],
        inputs=[EMBEDDINGS],
        curves=curves,
        device=device,
        make_batches=batches_of(
            system.scheme, data, max_length=sequence.max_length, positions=p.batch_positions, device=device
        ),
        is_hopeless=is_hopeless,
    )
    return model, outcome.summary()
