import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stages.errors import InputError

EPOCHS = {"baseline": {"epochs": 2, "batch_positions": 256}}


def refitted(workspace, *names: str, **changes) -> None:
    workspace.set_params(**EPOCHS, **({"refit": True} | changes))
    for name in names:
        workspace.run_baseline(name)
        workspace.run_baseline(name, stage="refit_baseline")


def test_sasrec_is_refitted_as_the_id_encoder_is(after):
    workspace = after("posttrain")
    refitted(workspace, "sasrec")
    workspace.run("refit")
    ranks, of_encoder = (pl.read_parquet(f"artifacts/ranks/{name}_refit.parquet") for name in ("sasrec", "id_encoder"))
    assert ranks.equals(of_encoder)
    assert not ranks.equals(pl.read_parquet("artifacts/ranks/sasrec.parquet"))


def test_a_system_with_content_is_refitted_and_its_metrics_stand_beside_the_others_but_not_in_table_4(after):
    workspace = after("evaluate")
    refitted(workspace, "missrec_t_id", baselines=["missrec_t_id"])
    workspace.run("fuse", "report")
    ranks = pl.read_parquet("artifacts/ranks/missrec_t_id_refit.parquet")
    content = json.loads(Path("metrics/baselines/missrec_t_id.json").read_text())
    assert content["refit"]["hit@10"] == np.mean(ranks["rank"].to_numpy() <= 10)
    assert content["refit"]["filtered"]["hit@5"] == np.mean(ranks["rank_filtered"].to_numpy() <= 5)
    assert content["refit"]["epochs"] == content["training"]["best_epoch"]
    assert "refit" not in Path("metrics/table4.md").read_text()


@pytest.mark.parametrize(("name", "changes"), [("sasrec", {"refit": False}), ("pop", {}), ("itemknn", {})])
def test_without_refit_and_for_a_system_that_is_not_trained_there_are_no_ranks(after, name, changes):
    workspace = after("evaluate")
    refitted(workspace, name, baselines=[name], **changes)
    assert len(pl.read_parquet(f"artifacts/ranks/{name}_refit.parquet")) == 0
    workspace.run("fuse", "report")
    assert "refit" not in json.loads(Path(f"metrics/baselines/{name}.json").read_text())


def test_an_unknown_or_absent_name_is_refused_with_the_names_that_there_are(after):
    workspace = after("evaluate")
    for name in ("sasrek", ""):
        with pytest.raises(InputError, match=f"there is no '{name}'; there are pop, itemknn"):
            workspace.run_baseline(name, stage="refit_baseline")


def test_ranks_of_systems_that_are_no_longer_listed_are_removed(after):
    workspace = after("evaluate")
    refitted(workspace, "sasrec", baselines=["sasrec"])
    workspace.set_params(baselines=[])
    workspace.run("fuse", "report")
    assert not Path("artifacts/ranks/sasrec_refit.parquet").exists()
