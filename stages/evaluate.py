"""Full ranking of the test items by SICSRec and by its ID encoder alone (paper sections 4.1 and 4.4)."""

from pathlib import Path

import numpy as np
import polars as pl
import torch

from stages.data.histories import Histories
from stages.errors import run_stage
from stages.files import read_parquet, write_json, write_parquet
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.params import load_params
from stages.training.checkpoints import load_weights, read_config
from stages.training.device import choose_device
from stages.training.ranking import mean_metrics, per_user_metrics, rank_users
from stages.training.statistics import interval

SPLIT = Path("artifacts/split")
MODELS = {
    "sicsrec": (Path("artifacts/sicsrec.safetensors"), Sicsrec, SicsrecConfig),
    "id_encoder": (Path("artifacts/id_encoder.safetensors"), Sasrec, SasrecConfig),
}


def load(name: str, device: torch.device) -> Sasrec | Sicsrec:
    """A trained model in evaluation mode."""
    path, kind, config = MODELS[name]
    model = kind(config(**read_config(path)))
    load_weights(path, model)
    return model.to(device).eval()


def main() -> None:
    params = load_params()
    device = choose_device(params.device)
    train, valid, test = (read_parquet(SPLIT / f"{name}.parquet") for name in ("train", "valid", "test"))
    histories = Histories.from_frame(train).extended(valid["item"].to_numpy())  # what is known before the test item

    ranks: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in MODELS:
        model = load(name, device)
        ranks[name] = rank_users(model, histories, test["item"].to_numpy(), model.config.max_length, device)
        kept, filtered = ranks[name]
        write_parquet(
            Path(f"artifacts/ranks/{name}.parquet"),
            pl.DataFrame({"user": test["user"], "rank": kept, "rank_filtered": filtered}),
        )
    per_user = per_user_metrics(ranks["sicsrec"][0])
    bootstrap, seed = params.evaluate.bootstrap, params.seed
    write_json(
        Path("metrics/evaluate.json"),
        mean_metrics(ranks["sicsrec"][0])
        | {
            "id_encoder": mean_metrics(ranks["id_encoder"][0]),
            "interval": {name: interval(values, bootstrap, seed) for name, values in per_user.items()},
            "filtered": mean_metrics(ranks["sicsrec"][1]) | {"id_encoder": mean_metrics(ranks["id_encoder"][1])},
        },
    )


if __name__ == "__main__":
    run_stage(main)
