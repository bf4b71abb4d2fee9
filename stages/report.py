"""Gather what the training stages wrote into metrics/, where git keeps it.

The training stages' own outputs are all cached by DVC, because a stage with an uncached output is never restored from
the run cache; this stage is cheap, so it may hold the copies that are committed.
"""

import csv
from pathlib import Path

import polars as pl

from stages.errors import run_stage
from stages.files import atomic, read_json, write_json

CURVES = Path("artifacts/curves")
METRICS = Path("metrics")
STAGES = ("sft", "pretrain", "posttrain")


def read_curves(folder: Path) -> pl.DataFrame:
    """DVCLive's one file a metric as one table: `epoch` and a column a metric."""
    columns: dict[str, list[float]] = {}
    for path in sorted((folder / "plots" / "metrics").rglob("*.tsv")):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        columns[path.stem] = [float(row[path.stem]) for row in rows]
    epochs = range(1, len(next(iter(columns.values()), [])) + 1)
    return pl.DataFrame({"epoch": list(epochs), **columns})


def main() -> None:
    summaries = {}
    for stage in STAGES:
        summaries[stage] = read_json(CURVES / stage / "summary.json")
        with atomic(METRICS / "curves" / f"{stage}.csv") as temporary:
            read_curves(CURVES / stage).write_csv(temporary)
    write_json(METRICS / "training.json", summaries)


if __name__ == "__main__":
    run_stage(main)
