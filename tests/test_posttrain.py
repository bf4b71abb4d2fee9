import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stages.errors import InputError

WEIGHTS = Path("artifacts/sicsrec.safetensors")


def test_the_frozen_id_encoder_keeps_its_weights_and_gets_low_rank_updates(after):
    after("posttrain")
    before, now = load_file("artifacts/id_encoder.safetensors"), load_file(WEIGHTS)
    layer = "blocks.0.attention.query"
    original = now[f"id_encoder.{layer}.parametrizations.weight.original"]
    assert torch.equal(original, before[f"encoder.{layer}.weight"])
    assert now[f"id_encoder.{layer}.parametrizations.weight.0.b"].abs().sum() > 0
    assert not torch.equal(now["item_embedding.weight"], before["item_embedding.weight"])


def test_a_frozen_content_side_is_trained_alone_first(after):
    workspace = after("pretrain")
    workspace.set_params(frozen=["content_encoder"])
    workspace.run("posttrain")
    summary = json.loads(Path("artifacts/curves/posttrain/summary.json").read_text())
    assert summary["content_first"]["epochs"] >= 1


def test_id_alone_runs_through_every_stage(after):
    workspace = after("pretrain")
    workspace.set_params(modalities=["id"])
    workspace.run("posttrain", "evaluate", "report")
    assert not any(name.startswith("content") for name in load_file(WEIGHTS))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"modalities": ["text"], "without": ["imse"]}, "modalities has no id"),
        ({"modalities": ["id"], "without": ["concl"]}, "modalities has neither text nor image"),
        ({"without": ["cmse", "mmsd"]}, "leaves nothing that reads content"),
    ],
)
def test_a_combination_without_sense_is_refused_with_the_reason_and_the_model_stays(after, changes, reason):
    workspace = after("posttrain")
    before = WEIGHTS.read_bytes()
    workspace.set_params(**changes)
    with pytest.raises(InputError, match=f"params.yaml: without=.*{reason}"):
        workspace.run("posttrain")
    assert WEIGHTS.read_bytes() == before
