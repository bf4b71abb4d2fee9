import json
from pathlib import Path

import polars as pl
import pytest

from stages import report
from stages.errors import InputError


def test_curves_have_one_row_per_epoch_and_one_column_per_metric(after):
    after("report")
    for stage, columns in {
        "sft": {"epoch", "loss", "t2t", "i2i", "t2i"},
        "pretrain": {"epoch", "loss", "ndcg@10", "hit@5"},
        "posttrain": {"epoch", "loss", "ce", "concl", "ndcg@10"},
    }.items():
        frame = pl.read_csv(f"metrics/curves/{stage}.csv")
        assert columns <= set(frame.columns), stage
        assert frame["epoch"].to_list() == [1, 2]


def test_the_curves_of_all_trained_models_are_in_one_table(after):
    workspace = after("evaluate")
    workspace.set_params(baselines=["pop", "gru4rec"], baseline={"epochs": 2})
    for name in ("pop", "gru4rec"):
        workspace.run_baseline(name)
    workspace.run("report")
    frame = pl.read_csv("metrics/curves/models.csv")
    assert frame.columns == ["model", "epoch", "loss", "ndcg@10"]
    assert frame["model"].unique(maintain_order=True).to_list() == ["ID encoder alone", "SICSRec", "gru4rec"]
    assert frame["epoch"].to_list() == [1, 2] * 3
    workspace.set_params(baselines=[])
    workspace.run("report")
    assert not list(Path("artifacts/curves/baselines").iterdir())


def test_training_json_has_the_summary_of_each_stage(after):
    after("report")
    written = json.loads(Path("metrics/training.json").read_text())
    assert set(written) == {"sft", "pretrain", "posttrain"}
    assert written["pretrain"] == json.loads(Path("artifacts/curves/pretrain/summary.json").read_text())


def test_a_missing_summary_of_a_stage_is_named(after):
    workspace = after("evaluate")
    Path("artifacts/curves/sft/summary.json").unlink()
    with pytest.raises(InputError, match="curves/sft/summary.json is missing"):
        workspace.run("report")


def test_the_printed_table_is_kept_outside_git_so_that_a_clones_first_run_prints_it(after):
    workspace = after("evaluate")
    workspace.set_params(baselines=["pop"])
    workspace.run_baseline("pop")
    printed = report.main()
    assert report.SHOWN.read_text() == f"{printed}\n"
    rows = [line.split("  ")[0] for line in printed.splitlines()[4:7]]
    assert rows == ["SICSRec", "ID encoder alone", "pop"]


def test_the_table_has_all_systems_that_params_yaml_lists(after):
    workspace = after("evaluate")
    workspace.set_params(baselines=["pop"])
    with pytest.raises(InputError, match="ranks/pop.json is missing"):
        workspace.run("report")
    workspace.run_baseline("pop")
    workspace.run("report")
    table = json.loads(Path("metrics/table4.json").read_text())
    assert set(table["viewed_items_kept"]["systems"]) == {"sicsrec", "id_encoder", "pop"}
    written = json.loads(Path("metrics/baselines/pop.json").read_text())
    assert written["ndcg@10"] == table["viewed_items_kept"]["systems"]["pop"]["ndcg@10"]
    assert written["filtered"]["hit@5"] == table["viewed_items_filtered"]["systems"]["pop"]["hit@5"]


def test_the_groups_partition_the_users(after):
    after("report")
    groups = json.loads(Path("metrics/groups.json").read_text())
    whole = json.loads(Path("metrics/evaluate.json").read_text())
    for kind in groups["viewed_items_kept"].values():
        assert sum(group["users"] for group in kind.values()) == 80
        hits = sum(group["users"] * group["sicsrec"]["hit@10"] for group in kind.values())
        assert hits == pytest.approx(80 * whole["hit@10"])


def test_ranks_of_a_system_no_longer_listed_are_removed(after):
    workspace = after("evaluate")
    workspace.set_params(baselines=["pop"])
    workspace.run_baseline("pop")
    workspace.set_params(baselines=[])
    workspace.run("report")
    assert {path.name for path in Path("artifacts/ranks").iterdir()} == {"sicsrec.parquet", "id_encoder.parquet"}


def test_a_picture_that_fails_does_not_cost_the_tables(after, capsys):
    workspace = after("evaluate")
    Path("artifacts/raw/sample_cover.zip").write_bytes(b"no zip")
    workspace.run("report")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert "metrics/pictures/cases.jpg could not be drawn (BadZipFile" in line
    assert {"table4.md", "table4.json", "groups.json", "pictures"} <= {path.name for path in Path("metrics").iterdir()}
    assert {path.name for path in Path("metrics/pictures").iterdir()} == {"alignment.png", "cases.jpg"}


def test_it_says_at_the_end_what_came_out_and_that_the_sample_is_made_up(after):
    after("evaluate")
    said = report.main()
    for words in ("SICSRec ", "ID encoder alone ", "The sample is made up", "metrics/table4.md", "dvc exp run -S"):
        assert words in said
    table = json.loads(Path("metrics/table4.json").read_text())
    assert "made up" not in report.summary(table | {"dataset": "Bili_Food"})


def test_before_any_training_the_missing_file_is_named(after):
    workspace = after("split")
    with pytest.raises(InputError, match="is missing: run `dvc repro` to make it"):
        workspace.run("report")
