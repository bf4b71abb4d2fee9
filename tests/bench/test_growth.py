import json

import pytest
from PIL import Image

from stages.bench.growth import Size, draw, exponent, measure
from stages.params import load_params

SIZES = {
    "interactions": [Size(n, items=20, length=6) for n in (600, 1200, 2400)],
    "items": [Size(600, items=n, length=6) for n in (20, 40, 80)],
    "history length": [Size(40 * n, items=20, length=n) for n in (6, 12, 24)],
}


def test_proportional_growth_has_exponent_1_and_constant_cost_0():
    assert exponent({10: 1.0, 100: 5.0, 1000: 50.0}) == pytest.approx(1)
    assert exponent({10: 1.0, 100: 3.0, 1000: 3.0}) == pytest.approx(0)


def test_every_stage_is_measured_at_every_size_and_drawn(after, tmp_path, monkeypatch):
    after("download")
    monkeypatch.setattr("stages.bench.growth.MINIMUM", 0.01)
    measured = measure(load_params(), SIZES)
    assert {axis: set(stages) for axis, stages in measured.items()} == {
        "interactions": {"training", "ranking", "split"},
        "items": {"training", "ranking", "split", "embed"},
        "history length": {"training", "ranking", "split"},
    }
    for axis, sizes in {
        "interactions": [600, 1200, 2400],
        "items": [20, 40, 80],
        "history length": [6, 12, 24],
    }.items():
        for points in measured[axis].values():
            assert list(points) == sizes
            assert all(value > 0 for value in points.values())
    json.dumps(measured)
    draw(measured, tmp_path / "growth.png")
    with Image.open(tmp_path / "growth.png") as image:
        assert image.size == (1500, 500)
