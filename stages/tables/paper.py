"""The paper's own numbers, once: `paper.json` has them by table, dataset and row."""

import json
from pathlib import Path

PAPER = Path(__file__).with_name("paper.json")


def paper_values(table: str, dataset: str, row: str) -> dict[str, float] | None:
    """The paper's metrics in a row of a table, or None where the paper has none."""
    values: dict[str, dict[str, dict[str, dict[str, float]]]] = json.loads(PAPER.read_text(encoding="utf-8"))
    return values.get(table, {}).get(dataset, {}).get(row)
