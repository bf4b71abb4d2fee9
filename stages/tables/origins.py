"""Where each table comes from, for the end of metrics/README.md."""

import shlex
from collections.abc import Iterator
from typing import Any

from stages.tables.archive import ArchivedRun
from stages.tables.markdown import table_lines

Table = dict[str, Any]  # as summary.py writes it


def origins(tables: dict[str, dict[str, Table]], runs: list[ArchivedRun]) -> Iterator[str]:
    """Where each table comes from: data, seeds, the commits whose code ran, and the command that gathers it."""
    archived = {run.params["dataset"] for run in runs}
    cells = [["table", "data", "seeds", "code", "command"]]
    for name, by_dataset in tables.items():
        for dataset, table in by_dataset.items():
            seeds = sorted({seed for row in table["rows"].values() for seed in row["seeds"]})
            code = ", ".join(table.get("commits", [])) if dataset in archived else ""
            command = f"`{gathering_command(name, table)}`"
            cells.append([name, dataset, ", ".join(map(str, seeds)), code or "runs not archived", command])
    yield from table_lines(cells)


def gathering_command(name: str, table: Table) -> str:
    """The command line that made the table from experiments or archived runs."""
    where = table.get("where", {"dataset": table["dataset"]})
    return shlex.join(["python", "-m", "stages.tables", name, *(f"{key}={value}" for key, value in where.items())])
