"""The whole pipeline in a temporary clone, as a user runs it, on a small sample."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
SMALL = {
    "dim": 32,
    "download.sample_users": 200,
    "download.sample_items": 60,
    "download.sample_topics": 4,
    "sft.epochs": 2,
    "pretrain.epochs": 3,
    "posttrain.epochs": 3,
    "evaluate.bootstrap": 100,
    "baselines": ["pop", "gru4rec"],
    "baseline.epochs": 2,
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """The tracked and new files of the working tree in a git repository of their own, with small params, reproduced."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    for key, value in SMALL.items():
        *sections, name = key.split(".")
        (params[sections[0]] if sections else params)[name] = value
    yaml.dump(params, folder / "params.yaml")
    run(folder, "git", "init", "-q")
    commit(folder)
    run(folder, "dvc", "repro")
    commit(folder)
    return folder


def run(folder: Path, *command: str) -> str:
    """Run a command in the clone; dvc and python are those of this environment."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder.parent / "site-cache"),
    }
    environment.pop("DVC_ROOT", None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def commit(folder: Path) -> None:
    run(folder, "git", "add", "-A")
    run(folder, "git", "-c", "user.name=test", "-c", "user.email=test@example.invalid", "commit", "-qm", "state")


def metrics(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / "metrics").rglob("*.*"))}


def stages_run(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def test_every_stage_ran_and_left_its_metrics(clone):
    written = json.loads((clone / "metrics" / "evaluate.json").read_text())
    names = {"hit@5", "hit@10", "ndcg@5", "ndcg@10"}
    assert set(written) == names | {"id_encoder", "interval", "filtered"}
    assert set(written["id_encoder"]) == names
    assert set(written["filtered"]) == names | {"id_encoder"}
    for name in names:
        low, high = written["interval"][name]
        assert low <= written[name] <= high


def test_each_baseline_has_its_metrics_and_a_row_in_the_table(clone):
    assert sorted(path.name for path in (clone / "metrics/baselines").iterdir()) == ["gru4rec.json", "pop.json"]
    table = (clone / "metrics/table4.md").read_text()
    for name in ("sicsrec", "id_encoder", "gru4rec", "pop"):
        assert f"| {name} |" in table


def test_a_second_repro_runs_nothing(clone):
    assert stages_run(run(clone, "dvc", "repro")) == []
    assert "up to date" in run(clone, "dvc", "status")


def test_the_same_params_give_the_same_bytes(clone):
    before = metrics(clone)
    run(clone, "dvc", "repro", "--force", "--no-run-cache")
    assert metrics(clone) == before
    assert run(clone, "git", "status", "--porcelain") == ""


def test_alpha_trains_the_second_step_again_and_nothing_before_it(clone):
    output = run(clone, "dvc", "exp", "run", "-S", "alpha=0.3")
    assert stages_run(output) == ["posttrain", "evaluate", "report"]
    assert "posttrain.concl" in run(clone, "dvc", "metrics", "diff", "--all")


def test_a_temporary_copy_runs_too(clone):
    run(clone, "git", "checkout", "-q", ".")
    output = run(clone, "dvc", "exp", "run", "--temp", "-S", "without=[concl]")
    assert "posttrain" in stages_run(output)


def test_a_figure_is_gathered_from_the_experiments(clone):
    table = run(clone, "python", "-m", "stages.tables", "fig3_alpha", "without=[]")
    assert "| 0.2 | 1 |" in table
    assert "| 0.3 | 1 |" in table
    assert "0.9" in json.loads((clone / "metrics/tables/fig3_alpha_sample.json").read_text())["missing"]


def test_so_is_a_table(clone):
    table = run(clone, "python", "-m", "stages.tables", "table7", "alpha=0.2")
    rows = json.loads((clone / "metrics/tables/table7_sample.json").read_text())["rows"]
    assert sorted(rows) == ["SICSRec", "without ConCL"]
    committed = json.loads(run(clone, "git", "show", "HEAD:metrics/evaluate.json"))
    assert rows["SICSRec"]["kept"]["ndcg@10"]["mean"] == pytest.approx(committed["ndcg@10"])
    assert "Not run: without IMSE, without CMSE, without MMSD, without LoRA, without L2-norm." in table
