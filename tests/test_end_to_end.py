"""The whole pipeline on a small sample, in a temporary clone, run by the commands that a user types."""

import json
import re
from pathlib import Path

import pytest

from stages.tables.registry import TABLES
from tests.clone import commit, make_clone, run, stages_run
from tests.tables.every_line import SECOND_STEP, gathered, readme_lines, run_lines

SMALL = {
    "dim": 32,
    "download.sample_users": 200,
    "download.sample_items": 60,
    "download.sample_topics": 4,
    "sft.epochs": 2,
    "pretrain.epochs": 3,
    "posttrain.epochs": 3,
    "evaluate.bootstrap": 100,
    "baselines": ["pop", "gru4rec"],
    "baseline.epochs": 2,
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A clone of the working tree with small params, after `dvc repro`."""
    folder = tmp_path_factory.mktemp("clone")
    make_clone(folder, SMALL)
    return folder


def first_two_values(line: list[str]) -> list[str]:
    """`-S KEY=A,B,C` → `-S KEY=A,B`, where values may be lists."""
    value = r"(?:\[.*?\]|[^,[]+)"
    return [re.sub(f"=({value},{value}).*", r"=\1", argument) for argument in line]


def metrics(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / "metrics").rglob("*.*"))}


def test_evaluate_json_has_all_metrics_and_intervals_around_them(clone):
    written = json.loads((clone / "metrics" / "evaluate.json").read_text())
    names = {"hit@5", "hit@10", "ndcg@5", "ndcg@10"}
    assert set(written) == names | {"id_encoder", "interval", "filtered"}
    assert set(written["id_encoder"]) == names
    assert set(written["filtered"]) == names | {"id_encoder"}
    for name in names:
        low, high = written["interval"][name]
        assert low <= written[name] <= high


def test_each_baseline_has_a_metrics_file_and_a_row_in_the_table(clone):
    assert sorted(path.name for path in (clone / "metrics/baselines").iterdir()) == ["gru4rec.json", "pop.json"]
    table = (clone / "metrics/table4.md").read_text()
    for name in ("sicsrec", "id_encoder", "gru4rec", "pop"):
        assert f"| {name} |" in table


def test_a_second_repro_runs_nothing_but_the_look_at_the_source(clone):
    assert stages_run(run(clone, "dvc", "repro")) == []
    assert run(clone, "dvc", "status").split() == ["source:", "always", "changed"]  # it looks at the files every time


def test_the_same_params_give_the_same_bytes_again(clone):
    before = metrics(clone)
    run(clone, "dvc", "repro", "--force", "--no-run-cache")
    assert metrics(clone) == before
    assert run(clone, "git", "status", "--porcelain") == ""


def test_another_alpha_runs_posttrain_and_later_stages_only(clone):
    output = run(clone, "dvc", "exp", "run", "-S", "alpha=0.3")
    ran = stages_run(output)
    assert (ran[0], set(ran), ran[-1]) == ("posttrain", SECOND_STEP, "report")
    assert re.search(r"^metrics/main.json +ndcg@10 ", run(clone, "dvc", "metrics", "diff", "--all"), re.MULTILINE)


def test_lines_of_the_readme_run_only_the_stages_that_they_change(clone):
    run(clone, "git", "checkout", "-q", ".")
    lines = [first_two_values(line) for name in ("fig3_rank", "table7") for line in readme_lines()[name]]
    assert lines == [["-S", "rank=4,8"], ["-S", "without=[],[imse]"]]
    ran = [set(stages_run(log)) for log in run_lines(clone, lines, jobs="1")]
    assert len(ran) == 4
    assert set.union(*ran) == SECOND_STEP


def test_tables_are_gathered_from_the_experiments(clone):
    committed = json.loads(run(clone, "git", "show", "HEAD:metrics/evaluate.json"))
    for name, rows in {
        "fig3_rank": ["4", "8"],
        "table7": ["without IMSE", "SICSRec"],
        "fig3_alpha": ["0.2", "0.3"],
    }.items():
        table = gathered(clone, name)
        assert sorted(table["rows"]) == sorted(rows)
        assert set(table["missing"]) == {row.name for row in TABLES[name].rows} - set(rows)
        assert table["rows"][table["reference"]]["kept"]["ndcg@10"]["mean"] == pytest.approx(committed["ndcg@10"])
    assert "Not run: without CMSE" in (clone / "metrics/tables/table7_sample.md").read_text()


def test_a_table_is_rebuilt_from_the_archived_runs(clone):
    before = gathered(clone, "table7")
    commit(clone)
    copy = clone.parent / "copy"  # without experiments and without DVC's cache
    run(clone.parent, "git", "clone", "-q", str(clone), str(copy))
    (copy / "metrics/tables/table7_sample.json").unlink()
    assert gathered(copy, "table7") == before


def test_the_metrics_fit_a_terminal(clone):
    for command in (["show"], ["diff", "--all"]):
        lines = run(clone, "dvc", "metrics", *command).splitlines()
        assert len(lines) <= 6 and max(map(len, lines)) <= 100


def test_every_model_of_the_run_is_in_the_plots(clone):
    plots = json.loads(run(clone, "dvc", "plots", "show", "--json"))["data"]
    curves = plots["Validation ndcg@10 of every model"][0]["content"]["data"]["values"]
    assert {point["model"] for point in curves} == {"SICSRec", "ID encoder alone", "gru4rec"}  # pop is not trained
    (table,) = (plots[name] for name in plots if name.startswith("Systems of this run"))
    points = table[0]["content"]["data"]["values"]
    assert {point["row"] for point in points} == {"SICSRec", "ID encoder alone", "gru4rec", "pop"}
    assert all(float(point["low"]) <= float(point["ndcg@10"]) <= float(point["high"]) for point in points)


def test_figures_of_the_tables_are_among_the_plots(clone):
    plots = json.loads(run(clone, "dvc", "plots", "show", "--json"))
    assert "errors" not in plots
    for name in ("sweeps/rank/sample", "figures/table7_sample", "sweeps/alpha/sample"):
        drawn = plots["data"][f"metrics/{name}.csv"][0]["content"]["data"]["values"]
        assert {point["protocol"] for point in drawn} == {"kept", "filtered"}
        assert all(float(point["ndcg@10"]) > 0 for point in drawn)
