import shutil

import polars as pl
import pytest
from dvc.api import DVCFileSystem
from ruamel.yaml import YAML

from stages.errors import InputError
from stages.tables.archive import archived_runs
from stages.tables.experiments import ADDED, Experiment, choose_runs, flatten, is_compared
from stages.tables.registry import TABLES
from tests.clone import ROOT, commit, run

BASE = {"dataset": "sample", "seed": 1, "alpha": 0.2, "without": [], "text_encoder": "google-bert/bert-base-chinese"}


def experiment(name: str, **changes: object) -> Experiment:
    return Experiment(name, "abc1234", BASE | changes, None)


def names(found: dict[str, list[Experiment]]) -> dict[str, list[str]]:
    return {row: [experiment.name for experiment in group] for row, group in found.items() if group}


def test_nested_sections_become_dotted_keys():
    assert flatten({"alpha": 0.2, "sft": {"tasks": ["t2t"], "epochs": 3}}) == {
        "alpha": 0.2,
        "sft.tasks": ["t2t"],
        "sft.epochs": 3,
    }


def test_each_row_gets_the_experiments_with_its_params():
    given = [experiment("base"), experiment("again", seed=2), experiment("less", without=["mmsd"])]
    found = names(choose_runs(given, TABLES["table7"].rows, where={}, params=BASE))
    assert found == {"SICSRec": ["base", "again"], "without MMSD": ["less"]}


def test_the_order_of_a_list_is_ignored_and_a_string_is_a_pattern():
    given = experiment("one", without=["b", "a"])
    assert given.matches({"without": ["a", "b"]})
    assert not given.matches({"without": ["a"]})
    assert given.matches({"text_encoder": "*bert-base*"})
    assert not given.matches({"text_encoder": "*roberta*"})
    assert not given.matches({"rank": 4})


def test_experiments_that_differ_in_a_param_that_no_row_sets_are_chosen_by_params_yaml():
    given = [experiment("base"), experiment("other", alpha=0.3), experiment("less", without=["mmsd"])]
    assert names(choose_runs(given, TABLES["table7"].rows, where={}, params=BASE)) == {
        "SICSRec": ["base"],
        "without MMSD": ["less"],
    }
    assert names(choose_runs(given, TABLES["table7"].rows, where={"alpha": 0.3}, params=BASE)) == {"SICSRec": ["other"]}


def test_a_run_that_is_older_than_a_param_counts_as_run_with_what_was_then_fixed():
    given = [experiment("old"), experiment("new", monitor="ndcg@10"), experiment("other", monitor="filtered.ndcg@10")]
    params = BASE | {"monitor": "ndcg@10"}
    assert names(choose_runs(given, TABLES["table7"].rows, where={}, params=params)) == {"SICSRec": ["old", "new"]}
    assert [run.name for run in given if run.matches({"monitor": "ndcg@10"})] == ["old", "new"]


def test_no_compared_param_lacks_a_value_in_the_runs_of_the_archive():
    params = flatten(YAML(typ="safe").load(ROOT / "params.yaml"))
    for archived in archived_runs(ROOT / "metrics/runs"):
        compared = {key for key in params if is_compared(key, archived.params["dataset"])}
        assert compared - ADDED.keys() - archived.params.keys() == set(), archived.path


def test_the_size_of_the_sample_tells_no_runs_of_another_dataset_apart():
    rows, size = TABLES["table7"].rows, "download.sample_users"
    for dataset, chosen in (("Bili_Food", ["small", "large"]), ("sample", ["small"])):
        given = [experiment(name, dataset=dataset, **{size: users}) for name, users in (("small", 9), ("large", 99))]
        found = choose_runs(given, rows, where={"dataset": dataset}, params=BASE | {size: 9})
        assert names(found) == {"SICSRec": chosen}


def test_if_none_has_the_value_of_params_yaml_a_condition_is_required():
    given = [experiment("one", alpha=0.3), experiment("other", alpha=0.4, without=["mmsd"])]
    with pytest.raises(
        InputError, match=r"2 experiments differ in alpha \(0.3, 0.4\), none as in params.yaml: .* adding alpha=VALUE"
    ):
        choose_runs(given, TABLES["table7"].rows, where={}, params=BASE)
    assert names(choose_runs(given, TABLES["table7"].rows, where={"alpha": 0.3}, params=BASE)) == {"SICSRec": ["one"]}


def test_a_condition_is_required_only_for_what_params_yaml_does_not_decide():
    given = [experiment(f"{dataset}{alpha}", dataset=dataset, alpha=alpha) for dataset in "AB" for alpha in (0.2, 0.3)]
    with pytest.raises(InputError, match="2 experiments differ in dataset"):
        choose_runs(given, TABLES["table7"].rows, where={}, params=BASE)
    assert names(choose_runs(given, TABLES["table7"].rows, where={"dataset": "B"}, params=BASE)) == {
        "SICSRec": ["B0.2"]
    }


def test_a_value_that_all_experiments_share_needs_no_condition_and_is_printed(capsys):
    shared = {"dataset": "Bili_Food", "alpha": 0.3}
    given = [experiment("base", **shared), experiment("less", **shared, without=["mmsd"])]
    found = {"SICSRec": ["base"], "without MMSD": ["less"]}
    assert names(choose_runs(given, TABLES["table7"].rows, where={}, params=BASE)) == found
    assert capsys.readouterr().err == (
        "not as in params.yaml: all with dataset=Bili_Food\nnot as in params.yaml: all with alpha=0.3\n"
    )
    assert names(choose_runs(given, TABLES["table7"].rows, where=shared, params=BASE)) == found
    assert capsys.readouterr().err == ""


def test_seed_and_device_may_differ_within_a_row():
    given = [experiment("base", device="cpu"), experiment("other", seed=3, device="cuda")]
    assert names(choose_runs(given, TABLES["table7"].rows, where={}, params=BASE)) == {"SICSRec": ["base", "other"]}


def test_ranks_missing_from_dvc_s_cache_are_an_input_error(tmp_path):
    frames = {
        "ranks/sicsrec": {"rank": [1, 7, 3]},
        "split/items": {"item": [1, 2], "count": [0, 30]},
        "split/test": {"item": [2, 1, 2]},
    }
    for name, columns in frames.items():
        path = tmp_path / f"artifacts/{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(columns).write_parquet(path)
    run(tmp_path, "git", "init", "-q")
    run(tmp_path, "dvc", "init", "-q")
    run(tmp_path, "dvc", "add", *(f"artifacts/{name}.parquet" for name in frames))
    commit(tmp_path)
    committed = Experiment("main", "abc1234", BASE, DVCFileSystem(tmp_path, rev="HEAD"))
    assert committed.ranks("sicsrec")["rank"].to_list() == [1, 7, 3]
    assert committed.ranks("sicsrec")["training_count"].to_list() == [30, 0, 30]
    shutil.rmtree(tmp_path / ".dvc/cache")
    committed = Experiment("main", "abc1234", BASE, DVCFileSystem(tmp_path, rev="HEAD"))
    with pytest.raises(InputError, match="sicsrec.parquet of the experiment main is not in DVC's cache"):
        committed.ranks("sicsrec")
    assert committed.ranks("pop") is None


def test_a_commit_that_was_not_run_here_is_left_out(tmp_path, capsys):
    path = tmp_path / "artifacts/ranks/sicsrec.parquet"
    path.parent.mkdir(parents=True)
    pl.DataFrame({"rank": [1]}).write_parquet(path)
    for line in (("git", "init", "-q"), ("dvc", "init", "-q"), ("dvc", "add", str(path))):
        run(tmp_path, *line)
    commit(tmp_path)
    shutil.rmtree(tmp_path / ".dvc/cache")
    own = Experiment("main", "abc1234", BASE, DVCFileSystem(tmp_path, rev="HEAD"), is_commit=True)
    assert own.ranks("sicsrec") is None and own.ranks("sicsrec") is None
    assert capsys.readouterr().err.count("main was not run here") == 1
