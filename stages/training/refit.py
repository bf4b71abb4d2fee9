"""SICSRec and its ID encoder trained again for the epochs that validation chose, on training and validation items."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from stages.errors import InputError
from stages.files import read_json, read_vectors
from stages.models.content_controls import control_vectors
from stages.models.content_scoring import content_scored_vectors, neighbours_of_unseen
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.params import PosttrainParams, Schedule
from stages.training.checkpoints import read_config
from stages.training.next_item import TrainingData, train_next_item
from stages.training.smoothing import read_smoothing, smoothing_inputs

EMBEDDINGS = Path("artifacts/embeddings.parquet")
ID_ENCODER, SICSREC = Path("artifacts/id_encoder.safetensors"), Path("artifacts/sicsrec.safetensors")
CURVES = Path("artifacts/curves")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What both models are trained with."""

    max_length: int
    negatives: Literal["all"] | int
    smoothing: float
    seed: int
    modalities: tuple[str, ...]
    device: torch.device


def _train(name: str, model: Sasrec | Sicsrec, data: TrainingData, schedule: Schedule, settings: Settings) -> None:
    """Train all epochs of the schedule, without validation."""
    s = settings
    train_next_item(
        model,
        data,
        schedule,
        max_length=s.max_length,
        negatives=s.negatives,
        monitor=None,
        seed=s.seed,
        name=f"refit_{name}",
        identity=[asdict(model.config), s.smoothing],
        inputs=[EMBEDDINGS, ID_ENCODER, SICSREC, *smoothing_inputs(s.smoothing)],
        curves=CURVES / "refit" / name,
        device=s.device,
        smoothing=read_smoothing(s.smoothing),
    )


def refit_id_encoder(data: TrainingData, schedule: Schedule, settings: Settings) -> tuple[Sasrec, int]:
    """The ID encoder trained on `data`, which has the validation items, and its number of epochs."""
    epochs = read_json(CURVES / "pretrain/summary.json")["best_epoch"]
    torch.manual_seed(settings.seed)
    model = Sasrec(SasrecConfig(**read_config(ID_ENCODER)))
    _train("id_encoder", model, data, schedule.model_copy(update={"epochs": epochs}), settings)
    return model.eval(), epochs


def refit_sicsrec(
    data: TrainingData, schedule: PosttrainParams, settings: Settings, encoder: Sasrec
) -> tuple[Sicsrec, int]:
    """SICSRec trained on `data`, which has the validation items, and its number of epochs.

    It starts from the refitted ID encoder and ranks with the content weight that validation chose.
    """
    chosen = read_json(CURVES / "posttrain/summary.json")
    config = replace(SicsrecConfig(**read_config(SICSREC)), content_weight=None).with_order(settings.modalities)
    if config.needs_content_first:
        raise InputError("params.yaml: refit=true has no first step for a frozen content side: set refit=false")
    torch.manual_seed(settings.seed)
    model = Sicsrec(config, encoder if config.needs_id_encoder else None)
    matrices = {name: torch.from_numpy(matrix) for name, matrix in read_vectors(EMBEDDINGS, [*config.widths]).items()}
    vectors = control_vectors(matrices, schedule.content, settings.seed)
    if config.widths:
        model.load_content_vectors(vectors)
    _train("sicsrec", model, data, schedule.model_copy(update={"epochs": chosen["best_epoch"]}), settings)
    model.eval()
    if scoring := chosen.get("content_weight"):
        seen = torch.from_numpy(data.histories.counts(data.items) > 0).to(settings.device)
        neighbours = neighbours_of_unseen(model, seen, {name: table.to(seen.device) for name, table in vectors.items()})
        weight, scale = scoring["chosen"], scoring["unseen_scale"]
        ranked_by = content_scored_vectors(model, seen, neighbours, weight=weight, unseen_scale=scale)
        model.rank_by(ranked_by, content_weight=weight)
    return model, chosen["best_epoch"]
