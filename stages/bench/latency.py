"""Fig. 4, latency of a request: `python -m stages.bench.latency`, after `dvc repro`.

Times the scores of all items for batches of test users' histories: SASRec and SICSRec as trained, MISSRec untrained
with the same widths (weights do not change its speed). Also one request from the history to the list of items.
Writes `metrics/tables/fig4_DATASET.json` and `.csv`.
"""

from collections.abc import Callable
from functools import partial
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
from stages.models.baselines.folded_missrec import folded_missrec
from stages.models.baselines.missrec import MissRec, MissRecConfig
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.models.serving import folded_sicsrec
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.parallel.device import choose_device
from stages.params import Params, load_params
from stages.serving.recommendations import Choice, recommend_items
from stages.serving.requests import single
from stages.serving.trained import Trained
from stages.training.checkpoints import load_model

ARTIFACTS = Path("artifacts")
BATCHES = (1, 4, 16, 64, 256, 1024)
SECONDS = 2.0  # of measuring per batch size, after the timer's warm-up

Served = Sasrec | MissRec | Sicsrec


def trained_sicsrec() -> Sicsrec:
    """The SICSRec of the last `dvc repro`, not folded."""
    return load_model(ARTIFACTS / "sicsrec.safetensors", Sicsrec, SicsrecConfig)


def served_models(params: Params, device: torch.device) -> dict[str, Served]:
    """The three models of Fig. 4, ready to serve."""
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
            dropout=0,  # there is none in use
            max_length=params.sequence.max_length,
            widths=widths,
            use_id=True,
        ),
        {name: torch.from_numpy(matrix) for name, matrix in vectors.items()},
    )
    missrec.start_epoch(params.seed)
    ready: dict[str, Served] = {
        "sasrec": sasrec,
        "missrec": folded_missrec(missrec),
        "sicsrec": folded_sicsrec(sicsrec),
    }
    return {name: model.to(device) for name, model in ready.items()}


@torch.inference_mode()
def forward(model: Served, items: Tensor, matrix: Tensor) -> Tensor:
    """Scores of all items for each history. items: (B, L) → (B, N)."""
    hidden = model.last_hidden(items)
    return model.scores(hidden, matrix) if isinstance(model, MissRec) else hidden @ matrix.T


def time_call(statement: Callable[[], object]) -> Measurement:
    """Repeat a call for SECONDS and time it."""
    return Timer(
        "statement()", globals={"statement": statement}, num_threads=torch.get_num_threads()
    ).blocked_autorange(min_run_time=SECONDS)


def as_row(name: str, batch: int, measurement: Measurement) -> dict[str, str | int | float]:
    """Milliseconds per batch: median and interquartile range over blocks of calls."""
    return {"system": name, "batch": batch, "median_ms": measurement.median * 1e3, "iqr_ms": measurement.iqr * 1e3}


def main() -> None:
    params = load_params()
    device = choose_device(params.device)
    train = Histories.from_frame(read_parquet(ARTIFACTS / "split" / "train.parquet"))
    known = train.extended(read_parquet(ARTIFACTS / "split" / "valid.parquet")["item"].to_numpy())
    items = read_parquet(ARTIFACTS / "split" / "items.parquet")
    users = np.random.default_rng(params.seed).permutation(
        len(known.lengths)
    )  # repeated in a batch of more than there are
    rows = []
    for name, model in served_models(params, device).items():
        matrix = model.item_matrix().detach()
        for batch in BATCHES:
            histories = padded_histories(known, np.resize(users, batch), params.sequence.max_length)
            inputs = torch.from_numpy(histories).to(device)
            rows.append(as_row(name, batch, time_call(partial(forward, model, inputs, matrix))))

    sicsrec, one = folded_sicsrec(trained_sicsrec()).to(device), known.values[: known.offsets[1]].tolist()
    trained = Trained(sicsrec, sicsrec.item_matrix(), items)
    request = time_call(lambda: recommend_items(trained, single(one), Choice(top=10)))
    rows.append(as_row("sicsrec, top 10 of one history, end to end", 1, request))
    folder = Path("metrics/tables")
    write_json(folder / f"fig4_{params.dataset}.json", {"machine": machine(device), "rows": rows})
    with atomic(folder / f"fig4_{params.dataset}.csv") as temporary:
        pl.DataFrame(rows).write_csv(temporary)
    print(pl.DataFrame(rows))


if __name__ == "__main__":
    run_stage(main)
