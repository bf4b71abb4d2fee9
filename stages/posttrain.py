"""Step two: both streams, decoder and contrastive task on the pretrained ID encoder (paper section 3.5)."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.random import default_rng

from stages.data.histories import Histories, training_batches, training_windows
from stages.errors import InputError, run_stage
from stages.files import read_parquet, read_vectors, write_json
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.models.softmax import negative_sampler
from stages.params import Params, load_params
from stages.parallel.distributed import own_rows
from stages.training.checkpoints import load_weights, read_config, save_model, state_path
from stages.parallel.device import choose_device
from stages.training.fit import Outcome, Plan, fit
from stages.training.ranking import mean_metrics, rank_users

SPLIT = Path("artifacts/split")
EMBEDDINGS = Path("artifacts/embeddings.parquet")
ID_ENCODER = Path("artifacts/id_encoder.safetensors")
CURVES = Path("artifacts/curves/posttrain")


def model_config(params: Params, items: int, widths: dict[str, int], use_id: bool) -> SicsrecConfig:
    """SICSRec's configuration; layers, heads and length are the ID encoder's."""
    base, p = params.pretrain, params.posttrain
    config = SicsrecConfig(
        items, params.dim, base.layers, p.decoder_layers, base.heads, p.dropout, p.item_dropout, base.max_length,
        params.tau, params.alpha, params.lam, params.rank, widths, use_id, params.without, params.frozen,
    )  # fmt: skip
    if reason := config.refusal():
        raise InputError(f"params.yaml: {reason}")
    return config


def build_model(config: SicsrecConfig, vectors: dict[str, torch.Tensor]) -> Sicsrec:
    """A model with the content vectors in its tables and, when an ID part is frozen, the pretrained ID encoder."""
    model = Sicsrec(config)
    if config.widths:
        model.load_content_vectors(vectors)
    if config.use_id and {"id_embedding", "id_encoder"} & set(config.frozen):
        pretrained = Sasrec(SasrecConfig(**read_config(ID_ENCODER)))
        load_weights(ID_ENCODER, pretrained)
        model.load_id_encoder(pretrained)
    return model


def content_only(config: SicsrecConfig) -> SicsrecConfig:
    """The content side alone, nothing frozen: what is trained first when that side is to be frozen."""
    kept = tuple(name for name in config.without if name in ("concl", "l2norm"))
    config = replace(config, use_id=False, frozen=(), without=kept)
    if reason := config.refusal():
        raise InputError(f"params.yaml: frozen names the content side, but {reason}")
    return config


def train(model: Sicsrec, params: Params, histories: Histories, valid: np.ndarray, curves: Path) -> Outcome:
    """Fit with eq. 19, stopping on validation ndcg@10."""
    p, seed, config = params.posttrain, params.seed, model.config
    device = choose_device(params.device)
    model.sampler = negative_sampler(params.loss.negatives, histories.counts(config.items))
    windows = training_windows(histories, config.max_length)
    inputs = [SPLIT / "train.parquet", SPLIT / "valid.parquet", EMBEDDINGS, ID_ENCODER]
    return fit(
        model,
        lambda epoch: own_rows(
            training_batches(histories, windows, p.batch_positions, default_rng([seed, epoch]), device)
        ),
        lambda: mean_metrics(rank_users(model, histories, valid, config.max_length, device)[0]),
        Plan(p.epochs, p.patience, "ndcg@10", p.learning_rate, seed),
        device,
        curves,
        state_path(curves.name, [asdict(config), p.model_dump(), params.loss.model_dump(), seed], inputs),
    )


def main() -> None:
    params = load_params()
    histories = Histories.from_frame(read_parquet(SPLIT / "train.parquet"))
    valid = read_parquet(SPLIT / "valid.parquet")["item"].to_numpy()
    content = [name for name in params.modalities if name != "id"]
    vectors = {name: torch.from_numpy(matrix) for name, matrix in read_vectors(EMBEDDINGS, content).items()}
    widths = {name: table.shape[1] for name, table in vectors.items()}
    items = len(read_parquet(SPLIT / "items.parquet"))
    config = model_config(params, items, widths, "id" in params.modalities)

    torch.manual_seed(params.seed)
    model = build_model(config, vectors)
    summary = {}
    if {"content_embedding", "content_encoder"} & set(config.frozen):
        # Table 9's "Fixed Con…": the side that will be frozen is trained first, alone
        first = build_model(content_only(config), vectors)
        summary["content_first"] = train(first, params, histories, valid, CURVES / "content_first").summary()
        model.load_content_side(first)
    outcome = train(model, params, histories, valid, CURVES)
    save_model(Path("artifacts/sicsrec.safetensors"), model)
    write_json(CURVES / "summary.json", outcome.summary() | summary)


if __name__ == "__main__":
    run_stage(main)
