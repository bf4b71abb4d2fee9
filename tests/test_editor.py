"""What editors and GitHub read: .devcontainer, .vscode and the workflow, against README.md and requirements.txt."""

import json
import re

from ruamel.yaml import YAML

from tests.clone import ROOT
from tests.readme import commands_of, sections

CONTAINER = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
WORKFLOW = YAML(typ="safe").load(ROOT / ".github/workflows/ci.yml")
PAGE = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_container_runs_the_quick_start_on_a_python_that_the_readme_names():
    quick_start = commands_of(dict(sections(PAGE))["Quick start"])
    assert [CONTAINER["postCreateCommand"], CONTAINER["postAttachCommand"]] == quick_start[:2]
    version = re.fullmatch(r"mcr\.microsoft\.com/devcontainers/python:3\.(\d+)", CONTAINER["image"])
    oldest, newest = re.search(r"Python 3\.(\d+) to 3\.(\d+)", PAGE).groups()
    assert int(oldest) <= int(version[1]) <= int(newest)


def test_the_container_and_the_editor_recommend_the_same_extensions():
    recommended = json.loads((ROOT / ".vscode/extensions.json").read_text(encoding="utf-8"))["recommendations"]
    assert CONTAINER["customizations"]["vscode"]["extensions"] == recommended
    assert "iterative.dvc" in recommended


def test_the_workflow_runs_what_a_developer_runs_and_installs_the_pinned_dvc():
    steps = WORKFLOW["jobs"]["run"]["steps"]
    assert "bash .ci/run" in [step.get("run") for step in steps]
    summary = next(step["run"] for step in steps if "exp diff" in step.get("run", ""))
    pattern = re.search(r"grep '(\S+)' requirements.txt", summary)[1]
    assert len(re.findall(pattern, (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)) == 1
