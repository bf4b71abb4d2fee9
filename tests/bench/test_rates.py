import json
import sys
from pathlib import Path

import pytest
import torch

from stages.bench import rates
from stages.encoders.image import tiny_image_encoder
from stages.encoders.text import tiny_text_encoder
from stages.params import load_params

CPU = torch.device("cpu")


class Constant(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(()))

    def loss(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.w - x).square().mean()}


def test_the_first_epoch_is_not_timed(monkeypatch):
    clock = iter([100.0, 101.0, 103.0, 108.0])  # ends of the epochs
    monkeypatch.setattr("stages.bench.rates.time.perf_counter", lambda: next(clock))
    assert rates.epoch_seconds(Constant(), lambda epoch: [(torch.ones(2),)], 0.1, CPU) == 2.0


def test_the_text_encoder_has_the_size_of_bert_base(after):
    after("split")
    encoder = rates.base_text_encoder(["a title", "another"], load_params())
    layers = sum(parameter.numel() for parameter in encoder.model.encoder.parameters())
    assert layers == 12 * (4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768)


@pytest.fixture
def small_encoders(monkeypatch):
    """Tiny encoders instead of the large ones, which take minutes on a CPU."""
    monkeypatch.setattr(rates, "base_text_encoder", lambda titles, params: tiny_text_encoder(titles, "cls", 64))
    monkeypatch.setattr(rates, "base_image_encoder", lambda params: tiny_image_encoder("head"))


def test_every_rate_is_measured_and_written(after, monkeypatch, small_encoders):
    after("embed")
    monkeypatch.setattr(rates, "ROUNDS", 1)
    monkeypatch.setattr(rates, "SQUARE", 64)
    monkeypatch.setattr(sys, "argv", ["rates", "--titles", "12", "--covers", "12"])
    rates.main()
    result = json.loads(Path("metrics/bench_rates.json").read_text())
    measured = {key for key in result if key.endswith("_per_second")}
    assert measured == {
        "pretrain_positions_per_second", "posttrain_positions_per_second",
        *(f"{part}_{name}_per_second" for part in ("embed", "sft", "sft_trunk") for name in ("text", "image")),
    }  # fmt: skip
    assert all(result[key] > 0 for key in measured)
