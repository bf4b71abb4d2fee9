"""The lines of stages/tables/README.md queue what the registry of tables needs; `every_line` runs them."""

import pytest
from dvc.utils.hydra import get_hydra_sweeps
from ruamel.yaml import YAML

from stages.provenance import REFIT
from stages.tables.experiments import OWN_EPOCHS, Experiment, flatten
from stages.tables.registry import TABLES
from tests.clone import ROOT
from tests.tables.every_line import readme_lines

PARAMS = flatten(YAML(typ="safe").load(ROOT / "params.yaml"))


def queued(line: list[str]) -> list[Experiment]:
    """The experiments that `dvc exp run --queue` with these arguments creates."""
    experiments = []
    for overrides in get_hydra_sweeps({"params.yaml": line[1::2]}):
        changes = dict(override.split("=", 1) for override in overrides["params.yaml"])
        values = {key: YAML(typ="safe").load(value.replace("\\", "")) for key, value in changes.items()}
        assert values.keys() <= PARAMS.keys()
        experiments.append(Experiment("queued", "", PARAMS | values, None))
    return experiments


def systems_of(experiment: Experiment) -> set[str]:
    """The systems that the experiment ranks."""
    refit = {f"{name}{REFIT}" for name in experiment.params["baselines"]} if experiment.params["refit"] else set()
    return {*OWN_EPOCHS, REFIT, *experiment.params["baselines"]} | refit


def test_every_table_has_a_line():
    assert set(readme_lines()) == set(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_a_line_queues_an_experiment_for_every_row(name):
    experiments = [experiment for line in readme_lines()[name] for experiment in queued(line)]
    for row in TABLES[name].rows:
        of_row = [experiment for experiment in experiments if experiment.matches(row.params)]
        assert any(row.system in systems_of(experiment) for experiment in of_row), row
