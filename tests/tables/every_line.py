"""Run every line of stages/tables/README.md on a small sample: `python -m tests.tables.every_line`.

`python -m tests.tables.every_line table6 fig2` runs only those.

The lines are queued, run and gathered as written there, in a clone with small params. A loopback server answers
in place of Ollama, with another candidate for each model tag. Small models with random weights, saved in the real
formats in folders of the same names, replace those of the hub.
"""

import hashlib
import json
import os
import re
import shlex
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image
from ruamel.yaml import YAML

from stages.tables.figures import figure_path
from stages.tables.registry import TABLES
from tests.clone import ROOT, make_clone, run, stages_run
from tests.encoders.test_image import saved as saved_image_encoder
from tests.encoders.test_text import saved as saved_text_encoder
from tests.judge.ollama_server import Reply, candidates, chat_reply, ollama_server

SMALL = {
    "dim": 32,
    "download.sample_users": 300,
    "download.sample_items": 80,
    "download.sample_topics": 4,
    "encoders.workers": 0,
    "sft.epochs": 1,
    "pretrain.epochs": 2,
    "posttrain.epochs": 2,
    "baseline.epochs": 1,
    "evaluate.bootstrap": 100,
}
TEXT_ENCODERS = {
    "google-bert/bert-base-chinese": "bert",
    "FacebookAI/roberta-base": "roberta",
    "sentence-transformers/sentence-t5-base": "t5",
}
IMAGE_ENCODERS = {
    "swin_base_patch4_window7_224": "swin_tiny_patch4_window7_224",
    "vit_base_patch16_224": "vit_tiny_patch16_224",
    "resnet50": "resnet10t",
}
# the only stages that the lines of ONLY_SECOND_STEP may run
SECOND_STEP = {"posttrain", "evaluate", "refit", "fuse", "distill", "report"}
ONLY_SECOND_STEP = ("table7", "table9", "fig3_alpha", "fig3_rank")
ONCE = ("download", "split", "pretrain")  # stages that run once, but for lines that set one of their own params
JOBS = "2"

Lines = list[list[str]]  # the arguments of each `dvc exp run --queue`


def readme_section() -> str:
    return (ROOT / "stages/tables/README.md").read_text(encoding="utf-8")


def readme_lines() -> dict[str, Lines]:
    """The lines to queue, by the name of the table that they are for."""
    rows = [line.split("|")[1:-1] for line in readme_section().splitlines() if line.startswith("| ")]
    found = {name.strip(" `"): re.findall(r"`(-S [^`]+)`", cell) for _, cell, name in rows}
    return {name: [shlex.split(line) for line in lines] for name, lines in found.items() if lines}


def run_lines(clone: Path, lines: Lines, jobs: str = JOBS) -> list[str]:
    """Queue and run → the logs of the experiments. AssertionError with the end of the log of each that failed."""
    queued = [run(clone, "dvc", "exp", "run", "--queue", *line) for line in lines]
    names = re.findall(r"Queued experiment '([^']+)'", "".join(queued))
    run(clone, "dvc", "exp", "run", "--run-all", "--jobs", jobs)  # exits with 0 even when an experiment failed
    experiments = {
        experiment["name"]: experiment["executor"] or {}
        for commit in json.loads(run(clone, "dvc", "exp", "show", "--json"))
        for experiment in commit["experiments"] or []
    }
    logs = {name: Path(experiments[name]["local"]["log"]).read_text(encoding="utf-8") for name in names}
    failed = [name for name in names if experiments[name]["state"] != "success"]
    assert not failed, "\n".join(f"experiment {name} failed:\n{logs[name][-2000:]}" for name in failed)
    return list(logs.values())


def gathered(clone: Path, name: str) -> dict[str, Any]:
    """Run `python -m stages.tables NAME` → the table as JSON."""
    run(clone, "python", "-m", "stages.tables", name)
    table: dict[str, Any] = json.loads((clone / f"metrics/tables/{name}_sample.json").read_text(encoding="utf-8"))
    return table


def check_table(name: str, table: dict[str, Any]) -> None:
    """Every row has both protocols, and a p-value unless it is the reference."""
    assert table["rows"].keys() == {row.name for row in TABLES[name].rows}, f"{name} lacks {table['missing']}"
    for row, values in table["rows"].items():
        for protocol in ("kept", "filtered"):
            means = [values[protocol][metric]["mean"] for metric in TABLES[name].metrics]
            assert all(0 < mean < 1 for mean in means), f"{name}: {row}: {means}"
            assert ("p" in values[protocol]) == (row != table["reference"]), f"{name}: {row}"


def own_params(stage: str) -> list[str]:
    """The params that dvc.yaml declares for the stage."""
    pipeline = YAML(typ="safe").load(ROOT / "dvc.yaml")
    declared: list[str] = pipeline["stages"][stage]["params"]
    return declared


def check_stages(name: str, ran: Counter[str], lines: Lines) -> None:
    """No stage ran again whose inputs the line does not change."""
    keys = {argument.split("=")[0] for line in lines for argument in line}
    again = {stage for stage in ONCE if ran[stage] and keys.isdisjoint(own_params(stage))}
    assert not again, f"{name} ran again: {ran}"
    if name in ONLY_SECOND_STEP:
        assert ran.keys() <= SECOND_STEP, f"{name} ran again: {ran}"


def one_table(clone: Path, name: str, lines: Lines) -> None:
    begin = time.monotonic()
    logs = run_lines(clone, lines)
    ran = Counter(stage.split("@")[0] for log in logs for stage in stages_run(log))
    check_table(name, gathered(clone, name))
    check_stages(name, ran, lines)
    facts = ", ".join(f"{stage} {times}" for stage, times in ran.items())
    print(f"{name}: {len(logs)} experiments, {time.monotonic() - begin:.0f} s; stages run: {facts}", flush=True)


def check_figures(clone: Path) -> None:
    """Figs. 4 and 5 exist, and every table's figure is among DVC's plots."""
    command = re.search(r"`(python -m stages\.bench\.latency)`", readme_section())
    run(clone, *command[1].split())
    systems = {row["system"] for row in json.loads((clone / "metrics/tables/fig4_sample.json").read_text())["rows"]}
    assert {"sasrec", "missrec", "sicsrec"} <= systems
    for path in re.findall(r"`(metrics/pictures/[^`]+)`", readme_section()):
        with Image.open(clone / path) as picture:
            picture.verify()
    plots = json.loads(run(clone, "dvc", "plots", "show", "--json"))
    assert "errors" not in plots, plots["errors"]
    assert {figure_path(name, "sample").as_posix() for name in TABLES} <= plots["data"].keys()


def another_candidate(number: int, body: dict[str, Any]) -> Reply:
    """An answer that depends on the tag of the model."""
    _, *others = candidates(body)
    return chat_reply(json.dumps({"id": others[len(body["model"]) % len(others)]}))


def main() -> None:
    lines, begin, failed = readme_lines(), time.monotonic(), []
    wanted = sys.argv[1:] or list(lines)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # small tensors lose time to a second thread
    tags = [tag for override in lines["table5"][0] for tag in override.removeprefix("llm=").split(",")]
    digests = {tag: hashlib.sha256(tag.encode()).hexdigest() for tag in tags}
    with tempfile.TemporaryDirectory() as folder, ollama_server(another_candidate, models=digests) as server:
        clone = Path(folder) / "clone"
        ran = Counter(stages_run(make_clone(clone, SMALL | {"ollama.hosts": [server.url]})))
        assert [ran[stage] for stage in ONCE] == [1] * len(ONCE), ran
        print(f"dvc repro: {time.monotonic() - begin:.0f} s", flush=True)
        for name, kind in TEXT_ENCODERS.items():
            saved_text_encoder(clone / name, kind)
        for name, kind in IMAGE_ENCODERS.items():
            saved_image_encoder(clone / name, kind)
        for name in wanted:
            try:
                one_table(clone, name, lines[name])
            except AssertionError as error:
                failed.append(name)
                print(error, flush=True)
        if not failed and wanted == list(lines):
            check_figures(clone)
    print(f"{len(wanted)} tables, {time.monotonic() - begin:.0f} s; failed: {', '.join(failed) or 'none'}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
