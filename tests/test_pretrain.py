import json
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from stages.errors import InputError
from stages.parallel.device import choose_device

WEIGHTS = Path("artifacts/id_encoder.safetensors")


def test_the_summary_is_of_the_best_epoch(after):
    workspace = after("split")
    workspace.set_params(pretrain={"epochs": 4})
    workspace.run("pretrain")
    summary = json.loads(Path("artifacts/curves/pretrain/summary.json").read_text())
    lines = Path("artifacts/curves/pretrain/plots/metrics/ndcg@10.tsv").read_text().splitlines()[1:]
    scores = [float(line.split("\t")[-1]) for line in lines]
    assert summary["epochs"] == len(scores) == 4
    assert summary["ndcg@10"] == pytest.approx(max(scores))
    assert summary["best_epoch"] == scores.index(max(scores)) + 1


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(after):
    workspace = after("pretrain")
    first = WEIGHTS.read_bytes()
    workspace.run("pretrain")
    assert WEIGHTS.read_bytes() == first
    workspace.set_params(seed=7)
    workspace.run("pretrain")
    assert WEIGHTS.read_bytes() != first


def test_training_in_bfloat16_differs_by_rounding_and_repeats_to_the_bit(after, monkeypatch):
    monkeypatch.setattr("stages.ISA_LIMIT", "")  # or the limit would stay lifted in later tests
    workspace = after("split")
    found = {}
    for precision in ("float32", "bfloat16", "bfloat16"):
        AcceleratorState._reset_state(True)
        workspace.set_params(precision=precision, pretrain={"epochs": 2})
        workspace.run("pretrain")
        summary = json.loads(Path("artifacts/curves/pretrain/summary.json").read_text())
        assert found.setdefault(precision, (summary["loss"], WEIGHTS.read_bytes()))[1] == WEIGHTS.read_bytes()
    AcceleratorState._reset_state(True)
    choose_device("cpu")
    exact, rounded = found["float32"][0], found["bfloat16"][0]
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.01)


def test_a_missing_split_is_an_input_error(after):
    workspace = after("pretrain")
    Path("artifacts/split/valid.parquet").unlink()
    before = WEIGHTS.read_bytes()
    with pytest.raises(InputError, match="valid.parquet is missing: run `dvc repro`"):
        workspace.run("pretrain")
    assert WEIGHTS.read_bytes() == before


def test_a_device_that_the_machine_lacks_is_an_input_error(after):
    workspace = after("split")
    workspace.set_params(device="cuda:77")
    with pytest.raises(InputError, match="device=cuda:77 is not available on this machine"):
        workspace.run("pretrain")
