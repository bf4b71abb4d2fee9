import json
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

from stages.errors import InputError
from stages.tables.archive import archive_run, archived_runs
from stages.tables.experiments import NotInCache
from stages.tables.registry import TABLES
from stages.tables.summary import one_run_per_seed, read_runs, summarise

PARAMS = {"dataset": "Bili_Food", "seed": 1, "alpha": 0.2, "without": [], "source": "/home/someone/ninerec"}


@dataclass(frozen=True)
class FinishedRun:
    """An experiment with the ranks of one system in memory."""

    commit: str
    params: dict
    frame: pl.DataFrame
    system: str = "sicsrec"
    split_id: str = "s1"

    def ranks(self, system: str) -> pl.DataFrame | None:
        return self.frame if system == self.system else None

    def epochs(self, system: str) -> int:
        return 17

    def split(self, system: str) -> str | None:
        return self.split_id


def finished(commit: str = "abc1234", system: str = "sicsrec", split_id: str = "s1", **changes: object) -> FinishedRun:
    rng = np.random.default_rng(len(commit) + changes.get("seed", 1))
    ranks = {name: rng.integers(1, 1500, size=200) for name in ("rank", "rank_filtered")}
    return FinishedRun(commit, PARAMS | changes, pl.DataFrame({"user": range(200), **ranks}), system, split_id)


def test_an_archived_run_has_the_ranks_and_epochs_of_its_experiment(tmp_path):
    run = finished()
    archive_run(run, "sicsrec", tmp_path)
    (archived,) = archived_runs(tmp_path)
    assert archived.commit == "abc1234"
    for column in ("rank", "rank_filtered"):
        assert archived.ranks("sicsrec")[column].to_list() == run.frame[column].to_list()
    ours, theirs = read_runs([run], "sicsrec"), read_runs([archived], "sicsrec")
    assert ours.epochs == theirs.epochs == {1: 17}
    assert np.array_equal(ours.metrics["filtered"][1]["ndcg@10"], theirs.metrics["filtered"][1]["ndcg@10"])


def test_an_archived_run_is_found_by_its_params_and_stores_no_path_of_the_machine(tmp_path):
    archive_run(finished(alpha=0.3), "sicsrec", tmp_path)
    (archived,) = archived_runs(tmp_path)
    assert archived.matches({"dataset": "Bili_Food", "alpha": 0.3})
    assert not archived.matches({"alpha": 0.2})
    assert "source" not in archived.params


def test_groups_by_training_count_are_the_same_from_the_archive_and_absent_in_older_runs(tmp_path):
    run = finished()
    counts = np.random.default_rng(0).integers(0, 900, size=200)
    counted = FinishedRun(run.commit, run.params, run.frame.with_columns(training_count=counts))
    archive_run(counted, "sicsrec", tmp_path)
    (archived,) = archived_runs(tmp_path)
    found, expected = (read_runs([each], "sicsrec").by_count for each in (archived, counted))
    assert found == expected
    assert expected["kept"][1]["100+"]["users"] == (counts >= 100).sum()
    assert read_runs([run], "sicsrec").by_count == {"kept": {}, "filtered": {}}


def test_a_run_replaces_an_older_one_that_lacks_params_or_has_another_size_of_the_sample(tmp_path):
    older = finished("earlier", **{"download.sample_users": 2000})
    archive_run(older, "sicsrec", tmp_path)
    (path,) = tmp_path.glob("*/*.parquet")
    about = json.loads(pl.read_parquet_metadata(path)["run"])
    about["params"].pop("smoothing", None)
    pl.read_parquet(path).write_parquet(path.with_stem("sicsrec_1_00000000"), metadata={"run": json.dumps(about)})
    path.unlink()
    archive_run(finished("later", **{"download.sample_users": 1500, "smoothing": 0}), "sicsrec", tmp_path)
    assert [run.commit for run in archived_runs(tmp_path)] == ["later"]
    archive_run(finished("other", smoothing=0.1), "sicsrec", tmp_path)
    assert len(archived_runs(tmp_path)) == 2


def test_a_later_run_replaces_the_one_with_the_same_params_and_no_other(tmp_path):
    archive_run(finished("earlier"), "sicsrec", tmp_path)
    archive_run(finished("later"), "sicsrec", tmp_path)
    archive_run(finished("earlier", seed=2), "sicsrec", tmp_path)
    archive_run(finished("earlier", "pop"), "pop", tmp_path)
    runs = [(run.system, run.params["seed"], run.commit) for run in archived_runs(tmp_path)]
    assert sorted(runs) == [("pop", 1, "earlier"), ("sicsrec", 1, "later"), ("sicsrec", 2, "earlier")]


def test_an_experiment_without_ranks_of_the_system_is_not_archived(tmp_path):
    archive_run(finished(system="pop"), "sicsrec", tmp_path)
    assert archived_runs(tmp_path) == []


def test_an_experiment_is_used_before_an_archived_run_of_its_seed(tmp_path):
    for seed in (1, 2):
        archive_run(finished("earlier", seed=seed), "sicsrec", tmp_path)
    used = one_run_per_seed([finished("later"), *archived_runs(tmp_path)], "sicsrec")
    assert {run.params["seed"]: run.commit for run in used} == {1: "later", 2: "earlier"}
    assert one_run_per_seed(archived_runs(tmp_path), "pop") == []


def test_runs_are_sorted_by_seed_whatever_order_dvc_lists_them_in():
    listed = [finished(seed=seed) for seed in (2026, 2024, 2025)]
    assert [run.params["seed"] for run in one_run_per_seed(listed, "sicsrec")] == [2024, 2025, 2026]


class NotCached(FinishedRun):
    """An experiment whose ranks are no longer in DVC's cache."""

    def ranks(self, system: str) -> pl.DataFrame | None:
        raise NotInCache("not in the cache")


def test_ranks_missing_from_dvc_s_cache_are_read_from_the_archive_or_reported(tmp_path):
    archive_run(finished("earlier"), "sicsrec", tmp_path)
    not_cached = NotCached("later", PARAMS, pl.DataFrame())
    assert [run.commit for run in one_run_per_seed([not_cached, *archived_runs(tmp_path)], "sicsrec")] == ["earlier"]
    with pytest.raises(NotInCache):
        one_run_per_seed([not_cached], "sicsrec")


def test_fused_runs_are_told_apart_by_the_systems_that_are_fused_and_others_are_not(tmp_path):
    for fuse in (["sicsrec", "sasrec"], ["sicsrec", "gru4rec"]):
        for system in ("fused", "sicsrec"):
            archive_run(finished(system=system, fuse=fuse), system, tmp_path)
    runs = archived_runs(tmp_path)
    assert sorted(run.system for run in runs) == ["fused", "fused", "sicsrec"]
    (found,) = [run for run in runs if run.matches({"fuse": ["sasrec", "sicsrec"]})]
    assert found.system == "fused"


def test_distilled_runs_are_told_apart_by_the_sum_and_by_its_weight(tmp_path):
    for fuse in (["sicsrec", "sasrec"], ["sicsrec", "gru4rec"]):
        for weight in (1, 4):
            for system in ("distilled", "sicsrec"):
                archive_run(finished(system=system, fuse=fuse, distill=weight), system, tmp_path)
    runs = archived_runs(tmp_path)
    assert sorted(run.system for run in runs) == [*["distilled"] * 4, "sicsrec"]
    assert len([run for run in runs if run.matches({"distill": 4, "fuse": ["sasrec", "sicsrec"]})]) == 1


@pytest.mark.parametrize("change", [{"alpha": 0.3}, {"without": ["mmsd"]}])
def test_a_run_with_another_value_is_another_file(tmp_path, change):
    archive_run(finished(), "sicsrec", tmp_path)
    archive_run(finished(**change), "sicsrec", tmp_path)
    assert len(list(tmp_path.glob("Bili_Food/sicsrec_1_*.parquet"))) == 2


def test_runs_of_different_versions_of_a_dataset_are_not_put_into_one_table(tmp_path):
    archive_run(finished(split_id="before the edit"), "sicsrec", tmp_path)
    archive_run(finished(system="pop", split_id="after the edit"), "pop", tmp_path)
    runs = {run.system: read_runs([run], run.system) for run in archived_runs(tmp_path)}
    with pytest.raises(InputError, match="sicsrec and pop, seed 1, were ranked on different versions of Bili_Food"):
        summarise(TABLES["table4"], runs, name="table4", dataset="Bili_Food", resamples=100, seed=1)
