"""Minutes that training all systems of Table 4 takes on Bili_Dance, for one seed.

Each training stage runs for one epoch and for two, in a temporary workspace: their difference is an epoch with its
validation, the rest is what a run costs once (start-up, preparation, ranking). The number of epochs is the one of the
committed runs: the mean over seeds in `metrics/tables/table4_Bili_Dance.json`. The text encoder is not fine-tuned.
"""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from stages.bench.results import Result
from stages.bench.subprocess_usage import subprocess_usage
from stages.bench.workspace import write_params
from stages.files import project_root, read_json

DATASET = "Bili_Dance"
COMMITTED = Path(f"metrics/tables/table4_{DATASET}.json")
BEFORE = ("source", "download", "split", "pairs", "sft", "embed")  # stages that training needs
CHANGES = {"dataset": DATASET, "modalities": ["id", "text"], "device": "cpu", "sft": {"tasks": []}}
SCHEDULES = ("pretrain", "posttrain", "baseline")  # sections of params.yaml


def stages_of_table4(committed: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """Name, command and epochs of every training stage, in an order in which they can run. committed: the table's rows.

    SICSRec is trained in two steps, of which the first, `pretrain`, takes as many epochs as the system `sasrec`.
    """
    yield "pretrain", ("pretrain",), committed["sasrec"]["epochs"]
    yield "sicsrec", ("posttrain",), committed["sicsrec"]["epochs"]
    for name in sorted(committed.keys() - {"sicsrec"}):
        yield name, ("baseline", name), committed[name]["epochs"]


def training_minutes(rows: Mapping[str, Any], changes: dict[str, Any]) -> dict[str, float]:
    """Minutes of training by stage. rows: of the committed table. changes: to params.yaml."""
    environment = {"DVC_ROOT": str(project_root().absolute()), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    minutes = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def seconds(*command: str, epochs: int = 1) -> float:
            write_params(folder, changes | {section: {"epochs": epochs} for section in SCHEDULES})
            stage, *arguments = command
            return subprocess_usage(["-m", f"stages.{stage}", *arguments], folder, environment)["seconds"]

        for stage in BEFORE:
            seconds(stage)
        for system, command, epochs in stages_of_table4(rows):
            first = seconds(*command)
            epoch = seconds(*command, epochs=2) - first if epochs else 0.0
            minutes[system] = (first + max(0.0, epoch) * max(0.0, epochs - 1)) / 60
    return minutes


def table4_time(text_encoder: str) -> Result:
    """`table4_dance_minutes`, and its summands."""
    rows = read_json(COMMITTED)["rows"]
    minutes = training_minutes(rows, CHANGES | {"text_encoder": text_encoder})
    parts = {f"table4_dance_minutes_{system}": value for system, value in minutes.items()}
    return {**parts, "table4_dance_minutes": sum(minutes.values()), "table4_dance_threads": torch.get_num_threads()}
