"""What a newcomer reads whose environment is not activated, or whose Python is too old."""

import subprocess
import sys

import pytest

from stages import too_old
from tests.clone import ROOT


@pytest.mark.parametrize("stage", ["source", "split", "pretrain"])
def test_a_python_without_the_packages_is_one_line_that_says_how_to_get_them(stage):
    command = [sys.executable, "-S", "-m", f"stages.{stage}"]  # -S: without site-packages
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {sys.executable} has no package ")
    assert done.stderr.endswith("-m pip install -r requirements.txt`\n") and done.stderr.count("\n") == 1


def test_a_missing_module_of_the_project_itself_keeps_its_traceback():
    code = "import stages, stages.nothing"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" in done.stderr and "stages.nothing" in done.stderr


def test_an_old_python_is_named_with_the_oldest_that_works():
    assert too_old((3, 11, 0)) is None
    assert too_old((3, 10, 13)).endswith("is Python 3.10.13: activate an environment with Python 3.11 or newer")
