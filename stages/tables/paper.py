"""The numbers that the paper reports: `paper.json`, by table, dataset and row."""

import json
from pathlib import Path

PAPER = Path(__file__).with_name("paper.json")


def paper_values(table: str, dataset: str, row: str) -> dict[str, float] | None:
    """The metrics that the paper reports in this row of this table, or None."""
    values: dict[str, dict[str, dict[str, dict[str, float]]]] = json.loads(PAPER.read_text(encoding="utf-8"))
    return values.get(table, {}).get(dataset, {}).get(row)
