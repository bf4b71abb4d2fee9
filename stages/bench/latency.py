"""Fig. 4, how long a request takes: `python -m stages.bench.latency`, after `dvc repro`.

Ranking all items after each of a batch of test users' histories, in memory, on the device at hand: SASRec and SICSRec
as trained, MISSRec of the same widths untrained (its weights do not change its speed). And one request from end to end.
Writes `metrics/tables/fig4_DATASET.json` and `.csv`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.benchmark import Measurement, Timer

from stages.bench.machine import machine
from stages.data.histories import Histories, padded_histories
from stages.errors import run_stage
from stages.files import atomic, read_parquet, read_vectors, write_json
from stages.models.baselines.missrec import MissRec, MissRecConfig
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.models.serving import folded_missrec, folded_sicsrec
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.parallel.device import choose_device
from stages.params import Params, load_params
from stages.recommend import recommend
from stages.training.checkpoints import load_model

ARTIFACTS = Path("artifacts")
BATCHES = (1, 4, 16, 64, 256, 1024)
SECONDS = 2.0  # of measuring each cell, after the timer's own warm-up


def trained_sicsrec() -> Sicsrec:
    return load_model(ARTIFACTS / "sicsrec.safetensors", Sicsrec, SicsrecConfig)


def models(params: Params, device: torch.device) -> dict[str, torch.nn.Module]:
    """The three of Fig. 4, ready to serve."""
    sasrec = load_model(ARTIFACTS / "id_encoder.safetensors", Sasrec, SasrecConfig)
    sicsrec = trained_sicsrec()
    content = [name for name in params.modalities if name != "id"]
    vectors = read_vectors(ARTIFACTS / "embeddings_baselines.parquet", content)
    widths = {name: matrix.shape[1] for name, matrix in vectors.items()}
    torch.manual_seed(params.seed)
    missrec = MissRec(
        MissRecConfig(
            items=sicsrec.config.items,
            dim=params.dim,
            max_length=params.sequence.max_length,
            widths=widths,
            use_id=True,
        ),
        {name: torch.from_numpy(matrix) for name, matrix in vectors.items()},
    )
    missrec.start_epoch(params.seed)
    ready = {"sasrec": sasrec, "missrec": folded_missrec(missrec), "sicsrec": folded_sicsrec(sicsrec)}
    return {name: model.to(device) for name, model in ready.items()}


@torch.inference_mode()
def forward(model: torch.nn.Module, items: Tensor, matrix: Tensor) -> Tensor:
    """Scores of all items after each row's history. items: (B, L) → (B, N)."""
    hidden = model.last_hidden(items)
    scores: Tensor = model.scores(hidden, matrix) if hasattr(model, "scores") else hidden @ matrix.T
    return scores


def measured(statement: Callable[[], object]) -> Measurement:
    return Timer(
        "statement()", globals={"statement": statement}, num_threads=torch.get_num_threads()
    ).blocked_autorange(min_run_time=SECONDS)


def as_row(name: str, batch: int, measurement: Measurement) -> dict[str, str | int | float]:
    """Milliseconds a batch: the median over blocks of calls, and the quartiles' distance."""
    return {"system": name, "batch": batch, "median_ms": measurement.median * 1e3, "iqr_ms": measurement.iqr * 1e3}


def main() -> None:
    params = load_params()
    device = choose_device(params.device)
    train = Histories.from_frame(read_parquet(ARTIFACTS / "split" / "train.parquet"))
    known = train.extended(read_parquet(ARTIFACTS / "split" / "valid.parquet")["item"].to_numpy())
    items = read_parquet(ARTIFACTS / "split" / "items.parquet")
    users = np.random.default_rng(params.seed).permutation(len(known.lengths))  # again from the start in a large batch
    rows = []
    for name, model in models(params, device).items():
        matrix = model.item_matrix().detach()
        for batch in BATCHES:
            histories = padded_histories(known, np.resize(users, batch), params.sequence.max_length)
            inputs = torch.from_numpy(histories).to(device)
            rows.append(as_row(name, batch, measured(lambda m=model, x=inputs, i=matrix: forward(m, x, i))))

    sicsrec, one = folded_sicsrec(trained_sicsrec()).to(device), known.values[: known.offsets[1]].tolist()
    request = measured(lambda: recommend(sicsrec, items, one, top=10, viewed=False, title=f"title_{params.language}"))
    rows.append(as_row("sicsrec, top 10 of one history, end to end", 1, request))
    folder = Path("metrics/tables")
    write_json(folder / f"fig4_{params.dataset}.json", {"machine": machine(device), "rows": rows})
    with atomic(folder / f"fig4_{params.dataset}.csv") as temporary:
        pl.DataFrame(rows).write_csv(temporary)
    print(pl.DataFrame(rows))


if __name__ == "__main__":
    run_stage(main)
