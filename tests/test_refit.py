import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from stages.data.histories import Histories
from stages.errors import InputError
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.params import load_params
from stages.training.checkpoints import read_config
from stages.training.next_item import TrainingData, train_next_item
from stages.training.ranking import rank_users

SPLIT = Path("artifacts/split")
CPU = torch.device("cpu")


def refitted(workspace, **changes) -> dict:
    workspace.set_params(refit=True, **changes)
    workspace.run("refit")
    return json.loads(Path("metrics/refit.json").read_text())


def test_the_id_encoder_is_trained_on_training_and_validation_items_for_the_chosen_epochs(after):
    workspace = after("posttrain")
    found = refitted(workspace)["id_encoder"]
    best = json.loads(Path("artifacts/curves/pretrain/summary.json").read_text())["best_epoch"]
    assert found["epochs"] == best
    data = TrainingData.read(SPLIT)
    values = [
        item
        for history, valid in zip(pl.read_parquet(SPLIT / "train.parquet")["items"].to_list(), data.valid, strict=True)
        for item in (*history, valid)
    ]
    offsets = np.concatenate([[0], np.cumsum(data.histories.lengths + 1)])
    whole = TrainingData(Histories(np.array(values), offsets), data.before_valid, data.valid, data.items, (), {})
    torch.manual_seed(2024)
    model = Sasrec(SasrecConfig(**read_config(Path("artifacts/id_encoder.safetensors"))))
    schedule = load_params().pretrain.model_copy(update={"epochs": best})
    train_next_item(
        model, whole, schedule, max_length=50, negatives="all", monitor=None, seed=2024, name="test", identity=[],
        inputs=[], curves=Path("curves"), device=CPU,
    )  # fmt: skip
    test = pl.read_parquet(SPLIT / "test.parquet")
    kept, filtered = rank_users(model.eval(), whole.histories, test["item"].to_numpy(), max_length=50, device=CPU)
    ranks = pl.read_parquet("artifacts/ranks/id_encoder_refit.parquet")
    assert ranks["rank"].to_list() == kept.tolist()
    assert ranks["rank_filtered"].to_list() == filtered.tolist()
    assert found["filtered"]["hit@10"] == np.mean(filtered <= 10)


def test_sicsrec_is_refitted_with_the_content_weight_that_validation_chose(after):
    workspace = after("pretrain")
    workspace.set_params(content_weight=0.3, refit=True)
    workspace.run("posttrain", "refit")
    plain = pl.read_parquet("artifacts/ranks/sicsrec_refit.parquet")
    summary = Path("artifacts/curves/posttrain/summary.json")
    content = json.loads(summary.read_text())
    del content["content_weight"]
    summary.write_text(json.dumps(content))
    workspace.run("refit")
    assert not pl.read_parquet("artifacts/ranks/sicsrec_refit.parquet").equals(plain)


def test_without_refit_the_outputs_are_empty(after):
    workspace = after("posttrain")
    workspace.run("refit", "evaluate", "report")
    assert json.loads(Path("metrics/refit.json").read_text()) == {}
    for name in ("sicsrec", "id_encoder"):
        assert len(pl.read_parquet(f"artifacts/ranks/{name}_refit.parquet")) == 0


def test_a_frozen_content_side_is_refused(after):
    workspace = after("pretrain")
    workspace.set_params(frozen=["content_encoder"])
    workspace.run("posttrain")
    with pytest.raises(InputError, match="refit=true has no first step for a frozen content side"):
        refitted(workspace, frozen=["content_encoder"])
