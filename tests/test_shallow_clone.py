from pathlib import Path

import pytest

from stages.errors import InputError
from stages.shallow_clone import is_shallow, refuse_experiment_in_shallow_clone
from tests.clone import ROOT, commit, run


@pytest.fixture
def repository(tmp_path) -> Path:
    """A repository of two commits."""
    folder = tmp_path / "repository"
    folder.mkdir()
    run(folder, "git", "init", "-q")
    for text in ("one", "two"):
        (folder / "file").write_text(text)
        commit(folder)
    return folder


@pytest.fixture
def shallow(repository) -> Path:
    run(repository.parent, "git", "clone", "-q", "--depth", "1", f"file://{repository}", "shallow clone")
    return repository.parent / "shallow clone"


def copy_of(workspace: Path, monkeypatch) -> None:
    """Go to a folder that is to `workspace` what the copy of an experiment is."""
    copy = workspace / ".dvc" / "tmp" / "exps" / "copy"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(workspace))


def test_a_clone_is_shallow_until_it_is_unshallowed(repository, shallow):
    assert is_shallow(shallow)
    run(shallow, "git", "fetch", "-q", "--unshallow")
    assert not is_shallow(shallow)
    assert not is_shallow(repository)


def test_a_folder_outside_of_git_and_a_machine_without_git_are_not_shallow(shallow, tmp_path, monkeypatch):
    assert not is_shallow(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not is_shallow(shallow)


def test_an_experiment_in_a_copy_of_a_shallow_clone_is_refused(shallow, monkeypatch):
    copy_of(shallow, monkeypatch)
    with pytest.raises(InputError, match="shallow clone is a shallow clone.*git fetch --unshallow"):
        refuse_experiment_in_shallow_clone()


def test_in_a_shallow_clone_itself_and_in_a_copy_of_a_full_one_it_runs(shallow, repository, monkeypatch):
    monkeypatch.chdir(shallow)
    for value in (str(shallow), "."):
        monkeypatch.setenv("DVC_ROOT", value)
        refuse_experiment_in_shallow_clone()
    copy_of(repository, monkeypatch)
    refuse_experiment_in_shallow_clone()


def test_a_queued_experiment_in_a_shallow_clone_fails_with_the_mend(tmp_path):
    """With DVC's own queue."""
    run(tmp_path, "git", "clone", "-q", "--depth", "1", f"file://{ROOT}", "clone")
    clone = tmp_path / "clone"
    for name in ("stages/shallow_clone.py", "stages/source.py", "dvc.yaml"):  # as in the working tree
        (clone / name).write_bytes((ROOT / name).read_bytes())
    commit(clone)
    run(clone, "dvc", "exp", "run", "--queue", "-S", "seed=1", "source")
    log = run(clone, "dvc", "exp", "run", "--run-all")
    assert "git fetch --unshallow" in log
    assert "Failed" in run(clone, "dvc", "queue", "status")
