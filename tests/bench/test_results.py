import pytest

from stages.bench.results import RATIOS, earlier_results, table
from stages.files import write_json


@pytest.fixture
def earlier(tmp_path):
    path = tmp_path / "bench.json"
    write_json(path, {"dataset": "set", "machine": "cpu", "growth_40k_to_10m": 1.5})
    return path


def test_results_of_an_earlier_run_on_the_same_machine_and_dataset_are_reused(earlier):
    assert earlier_results(earlier, "set", "cpu")["growth_40k_to_10m"] == 1.5


@pytest.mark.parametrize(("dataset", "machine"), [("set", "other"), ("other", "cpu")])
def test_results_of_another_machine_or_dataset_are_dropped(earlier, dataset, machine):
    assert earlier_results(earlier, dataset, machine) == {"dataset": dataset, "machine": machine}


def test_the_first_run_has_no_earlier_results(tmp_path):
    assert earlier_results(tmp_path / "none.json", "set", "cpu") == {"dataset": "set", "machine": "cpu"}


def test_the_table_shows_the_measured_ratios_and_marks_those_out_of_bounds():
    ratios = {"growth_40k_to_10m": 1.5, "posttrain_vs_pretrain": 1.5, "sft_cached_vs_naive": 4.0}
    lines = table({"dataset": "set", **ratios, "split_seconds": 1.0}).splitlines()
    missed = {
        line.split()[0]: line.endswith("missed") for line in lines if line.split()[:1] and line.split()[0] in ratios
    }
    assert missed == {"growth_40k_to_10m": True, "posttrain_vs_pretrain": False, "sft_cached_vs_naive": True}
    assert not any(row.key in line for line in lines for row in RATIOS if row.key not in ratios)
    assert any(line.split() == ["split_seconds", "1"] for line in lines)
