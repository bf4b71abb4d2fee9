"""dvc.yaml against the code: every import is a dependency, every parameter that is read is declared."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.imports import ROOT, imported_files

PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")
PAGE = (ROOT / "stages/README.md").read_text(encoding="utf-8")
STAGES = {name: stage.get("do", stage) for name, stage in PIPELINE["stages"].items()}


# Code that a stage imports and that is no dependency of it: an edit does not change what the stage writes.
NO_DEPENDENCY = {
    "stages/params.py": "types and checks values; the values themselves are tracked as params",
    "stages/errors.py": "how a failure is worded and which status it exits with",
    "stages/models/systems.py": "params.py knows the names; artifacts/baselines/code holds each system's entry",
}
# The same of stages that depend on artifacts/baselines/code instead.
COVERED = dict.fromkeys(("baseline", "refit_baseline"), {"stages/models/baselines/material.py"})
# Modules to which a stage hands all params.
GIVEN_PARAMS = dict.fromkeys(("baseline", "refit_baseline"), ["stages/training/baselines.py"])
GIVEN_PARAMS["distill"] = ["stages/training/distillation.py"]


def undeclared(imports: set[Path], stage: str) -> set[str]:
    """The files among `imports` that none of the stage's dependencies, files or folders, holds."""
    declared = [ROOT / dep for dep in STAGES[stage]["deps"] if dep.startswith("stages/")]
    missing = {file for file in imports if not any(dep == file or dep in file.parents for dep in declared)}
    return {file.relative_to(ROOT).as_posix() for file in missing}


def read_parameters(path: Path) -> set[str]:
    """`params.key` and `params.section.key` as the stage script reads them, down to the top-level key."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params":
            names.add(node.attr)
    return names


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_code_that_it_imports_but_the_exceptions(stage):
    script = ROOT / "stages" / f"{stage}.py"
    missing = undeclared({script} | imported_files(script), stage)
    assert missing - NO_DEPENDENCY.keys() == COVERED.get(stage, set())


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_no_code_that_it_does_not_import(stage):
    script = ROOT / "stages" / f"{stage}.py"
    imports = {script} | imported_files(script)
    for dep in STAGES[stage]["deps"]:
        if dep.endswith(".py"):
            assert ROOT / dep in imports


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_the_parameters_that_it_reads(stage):
    declared = {name.split(".")[0] for name in STAGES[stage].get("params", [])}
    scripts = [f"stages/{stage}.py", *GIVEN_PARAMS.get(stage, [])]
    assert declared == set().union(*(read_parameters(ROOT / script) for script in scripts))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_its_script(stage):
    assert STAGES[stage]["cmd"].removesuffix(" ${item}").split(" ", 1)[1] == f"-m stages.{stage}"


def test_training_never_sees_the_test_items():
    for stage in ("pairs", "sft", "embed", "neighbours", "pretrain", "posttrain"):
        assert not any("test.parquet" in dep or "full.parquet" in dep for dep in STAGES[stage]["deps"])


def test_metrics_are_in_git_and_artifacts_are_in_the_cache():
    for stage in STAGES.values():
        for out in stage.get("outs", []) + stage.get("metrics", []):
            path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
            assert path.startswith("metrics/") == (options.get("cache") is False)


def test_the_one_file_of_metrics_is_short():
    declared = {path for stage in STAGES.values() for metric in stage.get("metrics", []) for path in metric}
    assert declared == {"metrics/main.json"}


def test_expensive_stages_have_only_cached_outputs_so_that_the_run_cache_restores_them():
    for stage in ("sft", "pretrain", "posttrain", "baseline"):
        assert "metrics" not in STAGES[stage]
        assert all(isinstance(out, str) for out in STAGES[stage]["outs"])


def test_no_module_imports_a_stage_script_and_models_import_only_models():
    scripts = {ROOT / "stages" / f"{stage}.py" for stage in STAGES}
    search = ROOT / "stages/search.py"  # a command, no stage: it trains as the stages do, by their own code
    for path in (ROOT / "stages").rglob("*.py"):
        if path != search:
            assert not imported_files(path) & (scripts | {search}) - {path}
        if "models" in path.relative_to(ROOT).parts:
            packages = {file.relative_to(ROOT / "stages").parts[0] for file in imported_files(path)}
            assert packages <= {"models", "parallel", "errors.py"}


def test_the_page_on_the_code_has_the_picture_that_dvc_draws():
    drawn = subprocess.run(
        [sys.executable, "-m", "dvc", "dag", "--md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert drawn.startswith("```mermaid")
    assert drawn in PAGE.split("## The DAG")[1].split("\n## ")[0]
    assert drawn not in PAGE.split("## Packages")[1]


def test_the_page_on_the_code_names_every_package_and_only_files_that_exist():
    for folder in (ROOT / "stages").iterdir():
        if (folder / "__init__.py").is_file():
            assert f"| `{folder.name}/` |" in PAGE
    lookups = PAGE.split("## I want to change")[1].split("\n## ")[0]
    for name in re.findall(r"`([\w/]+\.(?:py|yaml))`", lookups):
        assert any((ROOT / place / name).is_file() for place in ("", "stages")), name


def test_every_parameter_is_explained_beside_it_or_named_in_full():
    plain = {"layers", "heads", "epochs", "dropout", "learning_rate", "batch_positions", "patience", "decoder_layers"}
    plain |= {"sample_items", "sample_topics", "hosts"}
    for line in (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines():
        key = line.strip().split(":")[0]
        if line and not line.startswith("#") and not line.endswith(":"):
            assert "  # " in line or key in plain, f"{key} has no comment"
