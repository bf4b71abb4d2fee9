"""Full ranking of the test items by SICSRec and by its ID encoder alone (paper sections 4.1 and 4.4)."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from stages.data.histories import Histories
from stages.errors import run_stage
from stages.files import read_parquet, write_json, write_parquet
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.parallel.device import choose_device
from stages.params import load_params
from stages.provenance import check_inputs
from stages.rank_files import write_ranks
from stages.tables.cases import SHOWN, different_cases
from stages.training.checkpoints import load_model
from stages.training.metrics import mean_metrics, per_user_metrics
from stages.training.ranking import rank_users
from stages.training.recommending import best_items
from stages.training.statistics import interval

SPLIT = Path("artifacts/split")
MAIN = ("ndcg@10", "hit@10")
CASES = Path("artifacts/cases.parquet")
MODELS = {
    "sicsrec": (Path("artifacts/sicsrec.safetensors"), Sicsrec, SicsrecConfig),
    "id_encoder": (Path("artifacts/id_encoder.safetensors"), Sasrec, SasrecConfig),
}


def load(name: str, device: torch.device) -> Sasrec | Sicsrec:
    """A trained model in evaluation mode."""
    return load_model(*MODELS[name]).to(device)


def find_cases(
    models: dict[str, Sasrec | Sicsrec], histories: Histories, test: pl.DataFrame, ranks: dict[str, np.ndarray]
) -> pl.DataFrame:
    """What each model recommends after the histories on which the models differ most (Fig. 5).

    ranks: with viewed items filtered out, by model.
    """
    targets = test["item"].to_numpy()
    popularity = np.bincount(histories.values, minlength=int(targets.max()) + 1)[targets]
    rows = []
    for index in different_cases(ranks["sicsrec"], ranks["id_encoder"], popularity).tolist():
        history = histories.values[histories.offsets[index] : histories.offsets[index + 1]].tolist()
        row = {"user": test["user"][index], "history": history, "target": int(targets[index])}
        for name, model in models.items():
            device, length = model.position_embedding.weight.device, model.config.max_length
            row[name] = best_items(model, history, top=SHOWN, viewed=False, max_length=length, device=device)[0]
        rows.append(row)
    numbers = pl.List(pl.Int64)
    columns = {"user": test.schema["user"], "history": numbers, "target": pl.Int64(), **dict.fromkeys(models, numbers)}
    return pl.DataFrame(rows, schema=pl.Schema(columns))


def main_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    """The few that fit a row of `dvc metrics show` and `dvc exp show`, under their keys in evaluate.json."""
    shown = {name: metrics[name] for name in MAIN}
    filtered = {name: metrics["filtered"][name] for name in MAIN}
    return shown | {"filtered": filtered, "id_encoder": {MAIN[0]: metrics["id_encoder"][MAIN[0]]}}


def main() -> str:
    params = load_params()
    device = choose_device(params.device)
    files = [SPLIT / f"{name}.parquet" for name in ("train", "valid", "test")]
    train, valid, test = map(read_parquet, files)
    inputs = check_inputs(*files, *(path for path, _, _ in reversed(MODELS.values())))
    histories = Histories.before(test, lambda: Histories.from_frame(train).extended(valid["item"].to_numpy()))

    ranks: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    models = {name: load(name, device) for name in MODELS}
    for name, model in models.items():
        ranks[name] = rank_users(
            model, histories, test["item"].to_numpy(), max_length=model.config.max_length, device=device
        )
        kept, filtered = ranks[name]
        write_ranks(Path(f"artifacts/ranks/{name}.parquet"), test["user"], kept, filtered, inputs)
    cases = find_cases(models, histories, test, {name: filtered for name, (_, filtered) in ranks.items()})
    write_parquet(CASES, cases, inputs)
    per_user = per_user_metrics(ranks["sicsrec"][0])
    bootstrap, seed = params.evaluate.bootstrap, params.seed
    metrics: dict[str, Any] = {
        **mean_metrics(ranks["sicsrec"][0]),
        "id_encoder": mean_metrics(ranks["id_encoder"][0]),
        "interval": {name: interval(values, resamples=bootstrap, seed=seed) for name, values in per_user.items()},
        "filtered": mean_metrics(ranks["sicsrec"][1]) | {"id_encoder": mean_metrics(ranks["id_encoder"][1])},
    }
    write_json(Path("metrics/evaluate.json"), metrics)
    write_json(Path("metrics/main.json"), main_metrics(metrics))
    return f"{test.height:,} users ranked by SICSRec and by its ID encoder"


if __name__ == "__main__":
    run_stage(main)
