"""Learning curves as DVCLive logs them (one file per metric) → one table per stage."""

import csv
from pathlib import Path

import polars as pl

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
