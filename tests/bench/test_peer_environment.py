import pytest

from stages.bench import peer_environment
from stages.bench.peer_environment import Unavailable, environment, run_in_environment

RUNNER = "import json, sys\nprint('epoch 1')\nprint(json.dumps({'length': json.loads(sys.argv[1])['length'] + 1}))\n"


@pytest.fixture
def peer(tmp_path, monkeypatch):
    """A peer that needs no packages, and prints the length that it is given plus 1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(peer_environment, "HERE", tmp_path)
    (tmp_path / "peer.txt").write_text("# nothing\n")
    (tmp_path / "peer_runner.py").write_text(RUNNER)
    return "peer"


def test_the_script_runs_in_an_environment_that_is_made_again_when_its_requirements_change(peer, tmp_path):
    assert run_in_environment(peer, {"length": 2}, tmp_path) == {"length": 3}
    earlier = tmp_path / ".cache/peer/earlier"
    earlier.touch()
    environment(peer)
    assert earlier.exists()
    (tmp_path / "peer.txt").write_text("# still nothing\n")
    environment(peer)
    assert not earlier.exists()


def test_a_package_that_cannot_be_installed_is_named(peer, tmp_path):
    (tmp_path / "peer.txt").write_text("a-package-that-does-not-exist\n")
    with pytest.raises(Unavailable, match="pip could not install it: .*a-package-that-does-not-exist"):
        environment(peer)
