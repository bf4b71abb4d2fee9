"""Step one of the training strategy: the ID sequence encoder alone (paper sections 3.4.2 and 3.5.1)."""

from pathlib import Path

import torch
from numpy.random import default_rng

from stages.data.histories import Histories, training_batches, training_windows
from stages.errors import run_stage
from stages.files import read_parquet, write_json
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.models.softmax import negative_sampler
from stages.params import load_params
from stages.parallel.distributed import own_rows
from stages.training.checkpoints import save_model, state_path
from stages.parallel.device import choose_device
from stages.training.fit import Plan, fit
from stages.training.ranking import mean_metrics, rank_users

SPLIT = Path("artifacts/split")
CURVES = Path("artifacts/curves/pretrain")


def main() -> None:
    params = load_params()
    p, dim, seed = params.pretrain, params.dim, params.seed
    device = choose_device(params.device)
    histories = Histories.from_frame(read_parquet(SPLIT / "train.parquet"))
    valid = read_parquet(SPLIT / "valid.parquet")["item"].to_numpy()
    items = len(read_parquet(SPLIT / "items.parquet"))

    torch.manual_seed(seed)
    model = Sasrec(SasrecConfig(items, dim, p.layers, p.heads, p.dropout, p.max_length))
    model.sampler = negative_sampler(params.loss.negatives, histories.counts(items))
    windows = training_windows(histories, p.max_length)
    outcome = fit(
        model,
        lambda epoch: own_rows(
            training_batches(histories, windows, p.batch_positions, default_rng([seed, epoch]), device)
        ),
        lambda: mean_metrics(rank_users(model, histories, valid, p.max_length, device)[0]),
        Plan(p.epochs, p.patience, "ndcg@10", p.learning_rate, seed),
        device,
        CURVES,
        state_path(
            "pretrain",
            [p.model_dump(), params.loss.model_dump(), dim, seed],
            [SPLIT / "train.parquet", SPLIT / "valid.parquet"],
        ),
    )
    save_model(Path("artifacts/id_encoder.safetensors"), model)
    write_json(CURVES / "summary.json", outcome.summary())


if __name__ == "__main__":
    run_stage(main)
