"""SICSRec taught by the sum of scores of several systems, on histories shortened at random (`distill`)."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from stages.data.histories import Histories, training_batches_with_users, training_windows
from stages.errors import InputError
from stages.files import read_vectors
from stages.models.content_controls import control_vectors
from stages.models.distillation import Student, Teacher
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.parallel.distributed import BatchParts
from stages.params import Params
from stages.training.checkpoints import load_model, read_config
from stages.training.content_weight import score_with_content
from stages.training.fusion import SumOfScores, load_for_fusion, model_path
from stages.training.next_item import MakeBatches, TrainingData, train_next_item
from stages.training.smoothing import read_smoothing, smoothing_inputs
from stages.training.teacher import choose_teacher

EMBEDDINGS = Path("artifacts/embeddings.parquet")
ID_ENCODER, SICSREC = Path("artifacts/id_encoder.safetensors"), Path("artifacts/sicsrec.safetensors")
WHOLE = 0.5  # share of the shortened histories that end with the user's last training item
LEFT_OUT = 0.3  # share of their items that are dropped, at random


def shortened_histories(
    histories: Histories, users: Int[np.ndarray, " B"], max_length: int, rng: np.random.Generator
) -> Int[Tensor, "B M"]:
    """Each user's history, truncated at a random item for 1 − WHOLE of the users, with LEFT_OUT of its items dropped.

    Of what precedes the cut the latest max_length are read, and at least one item stays. users: rows of the histories.
    → right-padded with 0.
    """
    lengths = histories.lengths[users]
    ends = np.where(rng.random(len(users)) < WHOLE, lengths, rng.integers(1, lengths + 1))
    starts = np.maximum(ends - max_length, 0)
    index = starts[:, None] + np.arange(int((ends - starts).max()))
    inside = index < ends[:, None]
    stays = inside & (rng.random(index.shape) >= LEFT_OUT)
    stays[np.arange(len(users)), rng.integers(0, ends - starts)] |= ~stays.any(axis=1)
    values = histories.values[np.where(inside, histories.offsets[users][:, None] + index, 0)]
    order = np.argsort(~stays, axis=1, kind="stable")[:, : int(stays.sum(axis=1).max())]
    return torch.from_numpy(np.take_along_axis(np.where(stays, values, 0), order, axis=1))


def student_batches(data: TrainingData, *, max_length: int, positions: int, device: torch.device) -> MakeBatches:
    """A function that makes an epoch's batches: SICSRec's items and targets, and a shortened history for each row."""
    windows = training_windows(data.histories, max_length)

    def make(rng: np.random.Generator) -> Iterable[BatchParts]:
        for items, targets, users in training_batches_with_users(data.histories, windows, positions, rng, device):
            yield items, targets, shortened_histories(data.histories, users, max_length, rng)

    return make


def new_student(config: SicsrecConfig, vectors: dict[str, Tensor], teacher: Teacher, params: Params) -> Student:
    """An untrained student that starts where SICSRec's second step does. vectors: of the encoders, by modality."""
    if config.needs_content_first:
        raise InputError("params.yaml: distill has no first step for a frozen content side: set distill=0")
    pretrained = load_model(ID_ENCODER, Sasrec, SasrecConfig) if config.needs_id_encoder else None
    torch.manual_seed(params.seed)
    student = Student(config, pretrained, teacher, params.distill)
    if config.widths:
        student.load_content_vectors(vectors)
    return student


def train(
    params: Params, data: TrainingData, weights: dict[str, float], curves: Path, device: torch.device
) -> tuple[Sicsrec, dict[str, Any]]:
    """The trained student, and a summary of its training with the teacher's weights and temperature.

    weights: of the systems whose scores are added, above 0.
    """
    max_length, systems = params.sequence.max_length, [*weights]
    total = SumOfScores([load_for_fusion(name, device) for name in systems], tuple(weights.values()))
    teacher, tried = choose_teacher(total, data, max_length=max_length, device=device)
    config = replace(SicsrecConfig(**read_config(SICSREC)), content_weight=None).with_order(params.modalities)
    matrices = {name: torch.from_numpy(matrix) for name, matrix in read_vectors(EMBEDDINGS, [*config.widths]).items()}
    vectors = control_vectors(matrices, params.posttrain.content, params.seed)
    student = new_student(config, vectors, teacher, params)
    outcome = train_next_item(
        student,
        data,
        params.posttrain,
        max_length=max_length,
        negatives=params.loss.negatives,
        monitor=params.monitor,
        seed=params.seed,
        name="distill",
        identity=[asdict(student.config), params.smoothing, params.distill, weights, teacher.temperature],
        inputs=[EMBEDDINGS, ID_ENCODER, *map(model_path, systems), *smoothing_inputs(params.smoothing)],
        curves=curves,
        device=device,
        smoothing=read_smoothing(params.smoothing),
        make_batches=student_batches(
            data, max_length=max_length, positions=params.posttrain.batch_positions, device=device
        ),
    )
    model = student.without_teacher()
    summary: dict[str, Any] = {
        **outcome.summary(),
        "weights": weights,
        "temperature": teacher.temperature,
        "log_loss_by_temperature": {str(each): loss for each, loss in tried.items()},
    }
    if params.posttrain.content != "own":
        summary["content"] = params.posttrain.content
    if params.content_weight:
        found = score_with_content(model, data, vectors, params.content_weight, monitor=params.monitor, device=device)
        summary["content_weight"] = found
    return model, summary
