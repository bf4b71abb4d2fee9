"""Step two: both streams, decoder and contrastive task on the pretrained ID encoder (paper section 3.5)."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from stages.errors import InputError, run_stage
from stages.files import is_main_process, read_vectors, write_json
from stages.models.content_controls import control_vectors
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.parallel.device import choose_device
from stages.params import Params, load_params
from stages.training.checkpoints import load_model, save_model
from stages.training.content_weight import score_with_content
from stages.training.fit import IsHopeless, Outcome
from stages.training.next_item import TrainingData, train_next_item, training_in_words
from stages.training.smoothing import read_smoothing, smoothing_inputs

SPLIT = Path("artifacts/split")
EMBEDDINGS = Path("artifacts/embeddings.parquet")
ID_ENCODER = Path("artifacts/id_encoder.safetensors")
CURVES = Path("artifacts/curves/posttrain")


def model_config(params: Params, items: int, widths: dict[str, int], use_id: bool) -> SicsrecConfig:
    """SICSRec's configuration. widths: length of each content modality's vectors."""
    p = params.posttrain
    config = SicsrecConfig(
        items=items,
        dim=params.dim,
        **params.sequence.model_dump(),
        decoder_layers=p.decoder_layers,
        dropout=p.dropout,
        item_dropout=p.item_dropout,
        tau=params.tau,
        alpha=params.alpha,
        lam=params.lam,
        rank=params.rank,
        widths=widths,
        use_id=use_id,
        without=params.without,
        frozen=params.frozen,
    )
    if reason := config.refusal():
        raise InputError(f"params.yaml: {reason}")
    return config


def pretrained_encoder(config: SicsrecConfig, path: Path) -> Sasrec | None:
    """The encoder of step one, when an ID part is frozen. Raises InputError when it has another shape."""
    if not config.needs_id_encoder:
        return None
    encoder = load_model(path, Sasrec, SasrecConfig)
    for name in ("dim", "layers", "heads", "max_length"):
        trained, wanted = getattr(encoder.config, name), getattr(config, name)
        if trained != wanted:
            raise InputError(f"{path} was trained with {name}={trained}, params.yaml has {wanted}: run `dvc repro`")
    return encoder


def build_model(config: SicsrecConfig, vectors: dict[str, torch.Tensor], pretrained: Sasrec | None = None) -> Sicsrec:
    """A model with the content vectors in its tables, and the pretrained ID encoder if there is one."""
    model = Sicsrec(config, pretrained)
    if config.widths:
        model.load_content_vectors(vectors)
    return model


def content_only(config: SicsrecConfig) -> SicsrecConfig:
    """The content side alone, nothing frozen: what is trained first when that side is to be frozen."""
    without = tuple(name for name in config.without if name in ("concl", "l2norm"))
    config = replace(config, use_id=False, frozen=(), without=without)
    if reason := config.refusal():
        raise InputError(f"params.yaml: frozen names the content side, but {reason}")
    return config


def fit_model(
    model: Sicsrec,
    params: Params,
    data: TrainingData,
    curves: Path,
    id_encoder: Path,
    is_hopeless: IsHopeless | None = None,
) -> Outcome:
    """Fit with eq. 19, stopping on the validation metric `monitor`."""
    return train_next_item(
        model,
        data,
        params.posttrain,
        max_length=model.config.max_length,
        negatives=params.loss.negatives,
        monitor=params.monitor,
        seed=params.seed,
        name=curves.name,
        identity=[asdict(model.config), params.smoothing],
        inputs=[EMBEDDINGS, id_encoder, *smoothing_inputs(params.smoothing)],
        curves=curves,
        device=choose_device(params.device, params.precision),
        smoothing=read_smoothing(params.smoothing),
        is_hopeless=is_hopeless,
    )


def train(
    params: Params, data: TrainingData, curves: Path, id_encoder: Path, is_hopeless: IsHopeless | None = None
) -> tuple[Sicsrec, dict[str, Any]]:
    """SICSRec with the weights of its best epoch, and a summary of its training.

    id_encoder: the file of the encoder of step one. is_hopeless: see `fit`.
    """
    content = [name for name in params.modalities if name != "id"]
    vectors = {name: torch.from_numpy(matrix) for name, matrix in read_vectors(EMBEDDINGS, content).items()}
    vectors = control_vectors(vectors, params.posttrain.content, params.seed)
    widths = {name: table.shape[1] for name, table in vectors.items()}
    config = model_config(params, data.items, widths, use_id="id" in params.modalities)

    pretrained = pretrained_encoder(config, id_encoder)  # before the seed: loading it draws random numbers
    torch.manual_seed(params.seed)
    model = build_model(config, vectors, pretrained)
    summary: dict[str, Any] = {}
    if config.needs_content_first:
        # Table 9's "Fixed Con…": the side that will be frozen is trained first, alone
        first = build_model(content_only(config), vectors)
        summary["content_first"] = fit_model(first, params, data, curves / "content_first", id_encoder).summary()
        model.load_content_side(first)
    if params.posttrain.content != "own":
        summary["content"] = params.posttrain.content
    outcome = fit_model(model, params, data, curves, id_encoder, is_hopeless)
    if params.content_weight:
        device = choose_device(params.device, params.precision)
        found = score_with_content(model, data, vectors, params.content_weight, monitor=params.monitor, device=device)
        if is_main_process():
            print(f"content_weight {found['chosen']}, validation {params.monitor} {found['validation']:.4f}")
        summary["content_weight"] = found
    return model, outcome.summary() | summary


def main() -> str:
    params = load_params()
    data = TrainingData.read(SPLIT, EMBEDDINGS, *smoothing_inputs(params.smoothing), ID_ENCODER)
    model, summary = train(params, data, CURVES, ID_ENCODER)
    save_model(Path("artifacts/sicsrec.safetensors"), model, data.inputs)
    write_json(CURVES / "summary.json", summary)
    return training_in_words(summary, params.monitor)


if __name__ == "__main__":
    run_stage(main)
