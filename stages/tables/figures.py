"""What `dvc plots show` draws of the tables: `python -m stages.tables.figures` writes it again from metrics/tables."""

from pathlib import Path
from typing import Any

import polars as pl

from stages.errors import run_stage
from stages.files import read_json, write_csv
from stages.rank_files import PROTOCOLS
from stages.tables.markdown import TESTED
from stages.tables.registry import ALL_TABLES

TABLE_FILES = Path("metrics/tables")
FIGURES = Path("metrics/figures")  # a point for each row
SWEEPS = Path("metrics/sweeps")  # a line over the values of one parameter: SWEEPS/PARAMETER/DATASET.csv
PARAMETERS = {"fig3_alpha": "alpha", "fig3_rank": "rank"}


def figure_path(table: str, dataset: str) -> Path:
    """The CSV of a table on one dataset."""
    return SWEEPS / PARAMETERS[table] / f"{dataset}.csv" if table in PARAMETERS else FIGURES / f"{table}_{dataset}.csv"


def write_figure(table: dict[str, Any]) -> None:
    """Write a table's mean ndcg@10 in both protocols, and the mean minus and plus the deviation over seeds."""
    parameter = PARAMETERS.get(table["table"])
    title = f"{table['title']}, {table['dataset']}"
    points = []
    for protocol in PROTOCOLS:
        for row, values in table["rows"].items():
            mean, deviation = values[protocol][TESTED]["mean"], values[protocol][TESTED]["sd"]
            low, high = (None, None) if deviation is None else (mean - deviation, mean + deviation)
            point = {
                "title": title,
                parameter or "row": row,
                "protocol": protocol,
                TESTED: mean,
                "low": low,
                "high": high,
            }
            points.append(point)
    write_csv(figure_path(table["table"], table["dataset"]), pl.DataFrame(points, infer_schema_length=None))


def main() -> None:
    """Write the figure of every table in metrics/tables, its rows in the order of the registry."""
    for name in ALL_TABLES:
        for path in sorted(TABLE_FILES.glob(f"{name}_*.json")):
            table = read_json(path)
            order = [row.name for row in ALL_TABLES[name].rows if row.name in table["rows"]]
            write_figure(table | {"rows": {row: table["rows"][row] for row in order}})


if __name__ == "__main__":
    run_stage(main)
