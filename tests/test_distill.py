import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from stages import distill
from stages.errors import InputError
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.tables.curves import read_curves
from stages.training.checkpoints import load_model
from stages.training.next_item import TrainingData
from stages.training.ranking import rank_users
from tests.test_fuse import FUSED

CPU = torch.device("cpu")
SPLIT = Path("artifacts/split")
MODEL, RANKS = Path("artifacts/distilled.safetensors"), Path("artifacts/ranks/distilled.parquet")
FUSED_METRICS, METRICS = Path("metrics/fuse.json"), Path("metrics/distill.json")
TAUGHT = FUSED | {"fuse": ["sicsrec", "missrec_t_id"], "distill": 2}


def distilled(workspace, **changes) -> dict:
    """What metrics/distill.json has after missrec_t_id was trained, fused and taught."""
    workspace.set_params(**TAUGHT | changes)
    for name in FUSED["baselines"]:
        workspace.run_baseline(name)
    workspace.run("fuse", "distill")
    return json.loads(METRICS.read_text())


def test_the_model_is_a_sicsrec_that_ranks_the_test_items_as_was_written(after):
    found = distilled(after("posttrain"))
    model, data = load_model(MODEL, Sicsrec, SicsrecConfig), TrainingData.read(SPLIT)
    test = pl.read_parquet(SPLIT / "test.parquet")
    kept, filtered = rank_users(model, data.before_test(test), test["item"].to_numpy(), max_length=50, device=CPU)
    ranks = pl.read_parquet(RANKS)
    assert ranks["user"].to_list() == test["user"].to_list()
    assert (ranks["rank"].to_list(), ranks["rank_filtered"].to_list()) == (kept.tolist(), filtered.tolist())
    assert found["hit@5"] == np.mean(kept <= 5)
    assert found["filtered"]["hit@10"] == np.mean(filtered <= 10)
    weights = json.loads(FUSED_METRICS.read_text())["weights"]
    assert found["training"]["weights"] == {name: weight for name, weight in weights.items() if weight > 0}


def test_it_starts_from_the_id_encoder_whose_weights_stay(after):
    distilled(after("posttrain"))
    encoder = load_model(Path("artifacts/id_encoder.safetensors"), Sasrec, SasrecConfig)
    taught = load_model(MODEL, Sicsrec, SicsrecConfig)
    plain = load_model(Path("artifacts/sicsrec.safetensors"), Sicsrec, SicsrecConfig)
    history = torch.tensor([[3, 1, 2]])
    before, after_both = encoder.encoder.state_dict(), (taught.id_encoder.state_dict(), plain.id_encoder.state_dict())
    for state in after_both:
        shared = before.keys() & state.keys()
        assert shared
        assert all(torch.equal(before[name], state[name]) for name in shared)
    assert not torch.equal(taught.last_hidden(history), plain.last_hidden(history))


def test_more_weight_of_the_sum_brings_the_model_nearer_to_it(after):
    workspace, losses = after("posttrain"), []
    for weight in (0.01, 100):
        distilled(workspace, distill=weight, posttrain={"epochs": 8, "batch_positions": 64})
        losses.append(read_curves(Path("artifacts/curves/distill"))["distillation"][-1])
    assert losses[1] < losses[0]


def test_it_is_scored_by_content_as_content_weight_says(after):
    workspace = after("pretrain")
    workspace.set_params(content_weight=0.4)
    workspace.run("posttrain")
    found = distilled(workspace, content_weight=0.4)
    assert found["training"]["content_weight"]["chosen"] == 0.4
    assert load_model(MODEL, Sicsrec, SicsrecConfig).config.content_weight == 0.4


def test_it_is_a_row_of_the_table_with_a_p_value_and_a_curve(after):
    workspace = after("evaluate")
    found = distilled(workspace)
    workspace.run("report")
    table = json.loads(Path("metrics/table4.json").read_text())
    for protocol, values in (("kept", found), ("filtered", found["filtered"])):
        part = table[f"viewed_items_{protocol}"]
        assert part["systems"]["distilled"]["ndcg@10"] == values["ndcg@10"]
        assert 0 <= part["systems"]["distilled"]["p"] <= 1
        assert all(best["system"] != "distilled" for best in part["best_other"].values())
    assert "distilled: sicsrec trained once more" in Path("metrics/table4.md").read_text()
    curves = pl.read_csv("metrics/curves/models.csv")
    assert len(curves.filter(model="distilled")) == found["training"]["epochs"]


def test_the_same_params_give_the_same_bits(after):
    workspace = after("posttrain")
    distilled(workspace)
    before = MODEL.read_bytes(), RANKS.read_bytes(), METRICS.read_bytes()
    workspace.run("distill")
    assert (MODEL.read_bytes(), RANKS.read_bytes(), METRICS.read_bytes()) == before


def test_the_line_on_the_screen_says_how_it_was_trained(after):
    found = distilled(after("posttrain"))["training"]
    assert distill.main() == (
        f"{found['epochs']} epochs, best validation ndcg@10 {found['ndcg@10']:.4f} at epoch {found['best_epoch']}"
    )


def test_without_distill_the_outputs_are_empty_and_the_table_has_no_such_row(after):
    workspace = after("evaluate")
    workspace.run("fuse", "distill", "report")
    assert json.loads(METRICS.read_text()) == {}
    assert len(pl.read_parquet(RANKS)) == 0
    assert "distilled" not in Path("metrics/table4.md").read_text()


def test_weights_of_other_systems_are_refused(after):
    workspace = after("posttrain")
    distilled(workspace)
    before = METRICS.read_bytes()
    workspace.set_params(**TAUGHT | {"fuse": ["sicsrec", "id_encoder"]})
    with pytest.raises(
        InputError, match=r"fuse.json has no weights of fuse=\[sicsrec, id_encoder\]: run `dvc repro fuse`"
    ):
        workspace.run("distill")
    assert METRICS.read_bytes() == before


def test_a_frozen_content_side_is_refused(after):
    workspace = after("pretrain")
    workspace.set_params(frozen=["content_encoder"])
    workspace.run("posttrain")
    with pytest.raises(InputError, match="distill has no first step for a frozen content side: set distill=0"):
        distilled(workspace, frozen=["content_encoder"])
    assert not METRICS.exists()
