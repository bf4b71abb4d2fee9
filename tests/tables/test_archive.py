from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

from stages.tables.archive import archive_run, archived_runs
from stages.tables.experiments import NotInCache
from stages.tables.summary import one_a_seed, read_runs

PARAMS = {"dataset": "Bili_Food", "seed": 1, "alpha": 0.2, "without": [], "source": "/home/someone/ninerec"}


@dataclass(frozen=True)
class Finished:
    """An experiment with one system's ranks in memory."""

    commit: str
    params: dict
    frame: pl.DataFrame
    system: str = "sicsrec"

    def ranks(self, system: str) -> pl.DataFrame | None:
        return self.frame if system == self.system else None

    def epochs(self, system: str) -> int:
        return 17


def finished(commit: str = "abc1234", system: str = "sicsrec", **changes: object) -> Finished:
    rng = np.random.default_rng(len(commit) + changes.get("seed", 1))
    ranks = {name: rng.integers(1, 1500, size=200) for name in ("rank", "rank_filtered")}
    return Finished(commit, PARAMS | changes, pl.DataFrame({"user": range(200), **ranks}), system)


def test_a_kept_run_measures_what_its_experiment_did(tmp_path):
    run = finished()
    archive_run(run, "sicsrec", tmp_path)
    (kept,) = archived_runs(tmp_path)
    assert kept.commit == "abc1234"
    for column in ("rank", "rank_filtered"):
        assert kept.ranks("sicsrec")[column].to_list() == run.frame[column].to_list()
    ours, theirs = read_runs([run], "sicsrec"), read_runs([kept], "sicsrec")
    assert ours.epochs == theirs.epochs == {1: 17}
    assert np.array_equal(ours.gains["filtered"][1]["ndcg@10"], theirs.gains["filtered"][1]["ndcg@10"])


def test_it_is_found_by_its_params_and_says_nothing_of_the_machine(tmp_path):
    archive_run(finished(alpha=0.3), "sicsrec", tmp_path)
    (kept,) = archived_runs(tmp_path)
    assert kept.matches({"dataset": "Bili_Food", "alpha": 0.3})
    assert not kept.matches({"alpha": 0.2})
    assert "source" not in kept.params


def test_of_the_same_params_the_later_run_is_kept_and_others_beside_it(tmp_path):
    archive_run(finished("earlier"), "sicsrec", tmp_path)
    archive_run(finished("later"), "sicsrec", tmp_path)
    archive_run(finished("earlier", seed=2), "sicsrec", tmp_path)
    archive_run(finished("earlier", "pop"), "pop", tmp_path)
    runs = [(run.system, run.params["seed"], run.commit) for run in archived_runs(tmp_path)]
    assert sorted(runs) == [("pop", 1, "earlier"), ("sicsrec", 1, "later"), ("sicsrec", 2, "earlier")]


def test_an_experiment_without_the_system_s_ranks_leaves_nothing(tmp_path):
    archive_run(finished(system="pop"), "sicsrec", tmp_path)
    assert archived_runs(tmp_path) == []


def test_an_experiment_counts_before_what_is_kept_and_the_other_seeds_beside_it(tmp_path):
    for seed in (1, 2):
        archive_run(finished("earlier", seed=seed), "sicsrec", tmp_path)
    used = one_a_seed([finished("later"), *archived_runs(tmp_path)], "sicsrec")
    assert {run.params["seed"]: run.commit for run in used} == {1: "later", 2: "earlier"}
    assert one_a_seed(archived_runs(tmp_path), "pop") == []


def test_seeds_come_in_one_order_whatever_order_dvc_lists_them_in():
    listed = [finished(seed=seed) for seed in (2026, 2024, 2025)]
    assert [run.params["seed"] for run in one_a_seed(listed, "sicsrec")] == [2024, 2025, 2026]


class Gone(Finished):
    """An experiment whose ranks DVC's cache no longer has."""

    def ranks(self, system: str) -> pl.DataFrame | None:
        raise NotInCache("gone")


def test_what_dvc_s_cache_no_longer_has_is_taken_from_what_is_kept_or_named(tmp_path):
    archive_run(finished("earlier"), "sicsrec", tmp_path)
    gone = Gone("later", PARAMS, pl.DataFrame())
    assert [run.commit for run in one_a_seed([gone, *archived_runs(tmp_path)], "sicsrec")] == ["earlier"]
    with pytest.raises(NotInCache):
        one_a_seed([gone], "sicsrec")


@pytest.mark.parametrize("change", [{"alpha": 0.3}, {"without": ["mmsd"]}])
def test_another_value_is_another_file(tmp_path, change):
    archive_run(finished(), "sicsrec", tmp_path)
    archive_run(finished(**change), "sicsrec", tmp_path)
    assert len(list(tmp_path.glob("Bili_Food/sicsrec_1_*.parquet"))) == 2
