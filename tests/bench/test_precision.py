import pytest
import torch

from stages.bench import precision
from stages.bench.precision import PRECISIONS, fastest, measure
from stages.bench.training import CPU
from stages.parallel.device import choose_device, uses_bfloat16
from stages.params import load_params


@pytest.fixture(autouse=True)
def few_rounds_and_no_lasting_change(monkeypatch):
    monkeypatch.setattr(precision, "ROUNDS", 2)
    monkeypatch.setattr("stages.ISA_LIMIT", "")
    yield
    choose_device("cpu")


def test_a_call_is_timed_in_both_precisions_in_turn():
    seen = []
    seconds = fastest(lambda: seen.append((uses_bfloat16(CPU), torch.is_autocast_enabled("cpu"))))
    assert seen == [(False, False), (True, True)] * 2
    assert set(seconds) == set(PRECISIONS)


def test_both_steps_are_measured(after):
    after("embed")
    result = measure(load_params())
    assert set(result["float32_vs_bfloat16"]) == {"pretrain", "posttrain"}
    for step, seconds in result["seconds"].items():
        assert result["float32_vs_bfloat16"][step] == pytest.approx(seconds["float32"] / seconds["bfloat16"])
