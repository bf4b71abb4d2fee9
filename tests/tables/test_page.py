"""The pages of results are what the files in metrics/ give."""

import json
import shlex
import shutil

import numpy as np
import pytest
from ruamel.yaml import YAML

from stages.errors import InputError
from stages.tables import page
from stages.tables.__main__ import parse_conditions
from stages.tables.archive import archived_runs
from stages.tables.experiments import choose_runs, flatten
from stages.tables.origins import gathering_command
from stages.tables.registry import ALL_TABLES
from stages.tables.searched import with_best_params
from stages.tables.summary import one_run_per_seed, read_runs
from tests.clone import ROOT


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of metrics/ and README.md to write to."""
    shutil.copytree(ROOT / "metrics", tmp_path / "metrics")
    shutil.copy2(ROOT / "README.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["page", *arguments])
    page.main()


def test_the_committed_pages_are_what_the_files_give(copy, monkeypatch):
    run(monkeypatch, "--check")


def test_a_changed_figure_is_noticed_and_written(copy, monkeypatch):
    path = copy / "metrics/tables/table4_Bili_Food.json"
    table = json.loads(path.read_text())
    table["rows"]["sicsrec"]["kept"]["ndcg@10"]["mean"] = 0.98765
    path.write_text(json.dumps(table))
    with pytest.raises(InputError, match="README.md is not what metrics/ gives: run `python -m stages.tables.page`"):
        run(monkeypatch, "--check")
    run(monkeypatch)
    assert "| **SICSRec ID+T** | 0.9877 |" in (copy / "README.md").read_text()
    run(monkeypatch, "--check")


def test_a_readme_without_the_marks_is_refused(copy, monkeypatch):
    (copy / "README.md").write_text("# other")
    with pytest.raises(InputError, match="README.md lacks the lines"):
        run(monkeypatch)


def test_the_readme_is_one_screen_after_another_not_a_book():
    assert (ROOT / "README.md").stat().st_size <= 10_240


def test_the_table_of_the_sample_in_readme_is_made_from_its_last_run(copy):
    path = copy / "metrics/table4.json"
    table = json.loads(path.read_text())
    assert table["dataset"] == "sample"
    table["viewed_items_kept"]["systems"]["sicsrec"]["ndcg@10"] = 0.4321
    path.write_text(json.dumps(table))
    assert "```text\n" in page.readme()
    assert "\nSICSRec               0.4321 " in page.readme()


def test_the_run_of_another_dataset_leaves_readme_alone_and_is_named(copy):
    path, before = copy / "metrics/table4.json", (copy / "README.md").read_text()
    table = json.loads(path.read_text()) | {"dataset": "MyShop"}
    path.write_text(json.dumps(table))
    assert page.readme() == before
    assert "## The last run: MyShop" in page.page()
    assert "built-in sample" not in page.page()


def test_every_committed_table_is_what_its_command_gathers_from_the_archive(copy):
    archive, params = archived_runs(copy / "metrics/runs"), flatten(YAML(typ="safe").load(ROOT / "params.yaml"))
    with_runs = 0
    for name, by_dataset in page.read_tables().items():
        for dataset, table in by_dataset.items():
            if "commits" not in table:
                continue
            rows = with_best_params(ALL_TABLES[name], dataset).rows
            _, _, _, _, *conditions = shlex.split(gathering_command(name, table))
            found = choose_runs(archive, rows, where=parse_conditions(conditions), params=params)
            runs = {row.name: read_runs(one_run_per_seed(found[row.name], row.system), row.system) for row in rows}
            assert table["commits"] == sorted(set().union(*(each.commits for each in runs.values()))), (name, dataset)
            for row, values in table["rows"].items():
                where = f"{name} {dataset} {row}"
                assert values["seeds"] == sorted(runs[row].epochs), where
                for protocol, by_seed in runs[row].metrics.items():
                    means = [metrics["ndcg@10"].mean() for metrics in by_seed.values()]
                    assert values[protocol]["ndcg@10"]["mean"] == pytest.approx(np.mean(means)), f"{where} {protocol}"
            with_runs += 1
    assert with_runs > 10


def test_a_table_is_gathered_by_the_conditions_that_it_was_made_with():
    table = {"dataset": "MyShop", "where": {"dataset": "MyShop", "modalities": "[id,text]", "alpha": "0.3"}}
    expected = "python -m stages.tables table7 dataset=MyShop 'modalities=[id,text]' alpha=0.3"
    assert gathering_command("table7", table) == expected
    assert gathering_command("table7", {"dataset": "MyShop"}) == "python -m stages.tables table7 dataset=MyShop"
