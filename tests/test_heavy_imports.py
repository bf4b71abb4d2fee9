"""Packages that take a noticeable part of a second to import, and which stages import them."""

import os
import subprocess
import sys

import pytest

from tests.clone import ROOT

HEAVY = {
    "aiohttp", "gdown", "matplotlib", "ollama", "polars", "requests", "scipy", "sklearn", "timm", "torch",
    "torchvision", "transformers",
}  # fmt: skip
TRAINING = {"polars", "torch", "requests"}  # requests by dvclive
IMPORTS = {  # stage: what importing its script imports of HEAVY; what it needs for some params only comes later
    "source": set(),
    "download": {"polars"},
    "split": {"polars"},
    "pairs": {"polars"},
    "sft": TRAINING,
    "embed": {"polars", "torch"},
    "neighbours": {"polars"},
    "pretrain": TRAINING,
    "posttrain": TRAINING,
    "baseline_code": {"polars"},
    "baseline": TRAINING,
    "evaluate": {"polars", "scipy", "torch"},  # scipy: intervals
    "refit": {"polars"},
    "refit_baseline": {"polars"},
    "fuse": {"polars"},
    "distill": {"polars"},
    "report": {"polars", "scipy"},  # scipy: significance tests
    "recommend": {"polars", "torch"},
}


@pytest.mark.parametrize("stage", IMPORTS)
def test_a_stage_imports_only_the_heavy_packages_that_every_run_of_it_needs(stage):
    code = f"import sys, stages.{stage}; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ).stdout.split()
    assert set(modules) & HEAVY == IMPORTS[stage]
