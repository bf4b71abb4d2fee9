"""Learning curves as DVCLive logs them (one file per metric) → one table per stage, and one of all models."""

import csv
from pathlib import Path

import polars as pl

from stages.tables.markdown import TESTED

LIVE_ONLY = ("positions_per_second", "learning_rate")  # the first differs from run to run, the second never changes


def read_curves(folder: Path) -> pl.DataFrame:
    """The metrics that DVCLive logged into `folder`: column `epoch`, then one column per metric, one row per epoch."""
    columns: dict[str, list[float]] = {}
    for path in sorted((folder / "plots" / "metrics").rglob("*.tsv")):
        if path.stem in LIVE_ONLY:
            continue
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        columns[path.stem] = [float(row[path.stem]) for row in rows]
    epochs = range(1, len(next(iter(columns.values()), [])) + 1)
    return pl.DataFrame({"epoch": list(epochs), **columns})


def curves_of_models(folders: dict[str, Path]) -> pl.DataFrame:
    """The training loss and the validation ndcg@10 of each model that was trained, a row per model and epoch.

    folders: where DVCLive logged, by the model's name. → model, epoch, loss, ndcg@10 (of the protocol that `monitor`
    names).
    """
    frames = [pl.DataFrame(schema={"model": pl.String, "epoch": pl.Int64, "loss": pl.Float64, TESTED: pl.Float64})]
    for name, folder in folders.items():
        curves = read_curves(folder)
        validation = [column for column in curves.columns if column.endswith(TESTED)]
        if validation:
            frames.append(
                curves.select(pl.lit(name).alias("model"), "epoch", "loss", pl.col(validation[0]).alias(TESTED))
            )
    return pl.concat(frames)
