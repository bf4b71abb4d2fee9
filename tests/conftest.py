"""A small workspace that the stages run in, each stage's outputs made once a test session."""

import importlib
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

# a shell's background job ignores SIGINT and hands that down: tests of interruptions would wait forever
signal.signal(signal.SIGINT, signal.default_int_handler)

PARAMS = Path(__file__).parents[1] / "params.yaml"
SMALL = {
    "dim": 16,
    "download": {"sample_users": 80, "sample_items": 40, "sample_topics": 3},
    "encoders": {"workers": 0},
    "sft": {"epochs": 2},
    "pretrain": {"epochs": 2, "batch_positions": 256},
    "posttrain": {"epochs": 2, "batch_positions": 256},
    "evaluate": {"bootstrap": 100},
    "baselines": [],
}


torch.set_num_threads(1)  # tensors as small as the tests' lose time to a second thread


class Workspace:
    """The current folder as a stage sees it."""

    def set_params(self, **changes: object) -> None:
        """params.yaml with the small sizes of SMALL and these changes; a section's dict replaces only its own keys."""
        content = YAML(typ="safe").load(PARAMS)
        for source in (SMALL, changes):
            for key, value in source.items():
                content[key] = content[key] | value if isinstance(value, dict) else value
        YAML().dump(content, Path("params.yaml"))

    def run(self, *stages: str) -> None:
        """Run stages in this process, as `python -m stages.NAME` does but with their exceptions."""
        for stage in stages:
            importlib.import_module(f"stages.{stage}").main()

    def run_baseline(self, name: str, stage: str = "baseline") -> None:
        """Run `python -m stages.baseline NAME`, or another stage of the same system, in this process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", [stage, name])
            self.run(stage)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """made(stage): a folder in which all stages up to that one have run; made once."""
    order = ["download", "split", "pairs", "sft", "embed", "pretrain", "posttrain", "evaluate", "report"]
    folders: dict[str, Path] = {}

    def make(stage: str) -> Path:
        if stage in folders:
            return folders[stage]
        folder = tmp_path_factory.mktemp("made") / stage
        before = order.index(stage)
        if before:
            shutil.copytree(make(order[before - 1]), folder)
        else:
            folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.delenv("DVC_ROOT", raising=False)
            workspace = Workspace()
            workspace.set_params()
            workspace.run(stage)
        folders[stage] = folder
        return folder

    return make


@pytest.fixture
def after(made: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Workspace]:
    """after(stage): go to a fresh copy of the workspace in which all stages up to that one have run."""

    def go(stage: str) -> Workspace:
        folder = tmp_path / "workspace"
        shutil.copytree(made(stage), folder)
        monkeypatch.chdir(folder)
        monkeypatch.delenv("DVC_ROOT", raising=False)
        return Workspace()

    return go


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest module first, so that the others fill the second core meanwhile."""
    items.sort(key=lambda item: item.path.name != "test_end_to_end.py")
