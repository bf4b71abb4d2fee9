import random
from pathlib import Path

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.datasets import FAULTS, make_case


def test_some_random_datasets_end_right_or_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert fuzz(iter(range(20)), lambda: True, lambda seed: False) == 0


def test_a_seed_gives_one_dataset_and_every_fault_is_drawn(tmp_path: Path) -> None:
    first, second = (make_case(random.Random(7), tmp_path / name / "source") for name in ("a", "b"))
    assert (first.events, first.titles, first.covers) == (second.events, second.titles, second.covers)
    faults = {make_case(random.Random(seed), tmp_path / str(seed) / "source").fault for seed in range(400)}
    assert faults == {"", *FAULTS}
