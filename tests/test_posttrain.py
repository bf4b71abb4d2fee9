import json
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from stages.errors import InputError
from stages.files import read_vectors
from stages.models.content_scoring import content_scored_vectors, neighbours_of_unseen
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.params import load_params
from stages.posttrain import model_config
from stages.training.checkpoints import load_model

WEIGHTS = Path("artifacts/sicsrec.safetensors")


def test_the_frozen_id_encoder_keeps_its_weights_and_gets_low_rank_updates(after):
    after("posttrain")
    before, now = load_file("artifacts/id_encoder.safetensors"), load_file(WEIGHTS)
    layer = "blocks.0.attention.query"
    original = now[f"id_encoder.{layer}.parametrizations.weight.original"]
    assert torch.equal(original, before[f"encoder.{layer}.weight"])
    assert now[f"id_encoder.{layer}.parametrizations.weight.0.b"].abs().sum() > 0
    assert not torch.equal(now["item_embedding.weight"], before["item_embedding.weight"])


def test_each_param_is_the_model_s_param_of_that_name(after):
    workspace = after("split")
    workspace.set_params(
        alpha=0.3, lam=0.002, tau=0.07, rank=3, dim=24, without=["l2norm"], frozen=["id_embedding"],
        sequence={"layers": 4, "heads": 6, "max_length": 17},
        posttrain={"decoder_layers": 5, "dropout": 0.4, "item_dropout": 0.2},
    )  # fmt: skip
    assert model_config(load_params(), items=40, widths={"text": 9}, use_id=True) == SicsrecConfig(
        items=40, dim=24, layers=4, decoder_layers=5, heads=6, dropout=0.4, item_dropout=0.2, max_length=17,
        tau=0.07, alpha=0.3, lam=0.002, rank=3, widths={"text": 9}, use_id=True, without=("l2norm",),
        frozen=("id_embedding",),
    )  # fmt: skip


def test_an_id_encoder_of_another_shape_is_refused(after):
    workspace = after("pretrain")
    workspace.set_params(sequence={"heads": 1})  # its weights would fit
    with pytest.raises(InputError, match="id_encoder.safetensors was trained with heads=2, params.yaml has 1: run `dv"):
        workspace.run("posttrain")


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


def test_content_scoring_is_stored_with_the_model_and_changes_no_weight(after):
    workspace = after("posttrain")
    trained = load_file(WEIGHTS)
    workspace.set_params(content_weight="auto", monitor="filtered.ndcg@10")
    workspace.run("posttrain", "evaluate", "report")
    model = load_model(WEIGHTS, Sicsrec, SicsrecConfig)
    chosen = json.loads(Path("metrics/training.json").read_text())["posttrain"]["content_weight"]
    assert model.config.content_weight == chosen["chosen"]
    assert chosen["tried"][str(chosen["chosen"])] == max(chosen["tried"].values())
    assert load_file(WEIGHTS).keys() - trained.keys() == {"item_vectors"}


def test_the_weight_of_params_yaml_mixes_what_training_left(after):
    workspace = after("posttrain")
    trained = load_file(WEIGHTS)
    workspace.set_params(content_weight=0.5)
    workspace.run("posttrain")
    ranked = load_model(WEIGHTS, Sicsrec, SicsrecConfig)
    counts = pl.read_parquet("artifacts/split/items.parquet")["count"].to_numpy()
    seen, files = torch.from_numpy(counts > 0), Path("artifacts/embeddings.parquet")
    vectors = {name: torch.from_numpy(matrix) for name, matrix in read_vectors(files, ["text", "image"]).items()}
    scale = json.loads(Path("artifacts/curves/posttrain/summary.json").read_text())["content_weight"]["unseen_scale"]
    neighbours = neighbours_of_unseen(ranked, seen, vectors)
    expected = content_scored_vectors(ranked, seen, neighbours, weight=0.5, unseen_scale=scale)
    torch.testing.assert_close(ranked.item_matrix(), expected)
    now = load_file(WEIGHTS)
    assert all(torch.equal(now[name], tensor) for name, tensor in trained.items())


def test_a_control_trains_on_other_content_vectors(after):
    workspace = after("pretrain")
    tables = []
    for content in ("own", "shuffled", "random"):
        workspace.set_params(posttrain={"epochs": 1, "content": content, "learning_rate": 1e-12})
        workspace.run("posttrain")
        tables.append(load_file(WEIGHTS)["content.tables.text.weight"][1:])
    own, shuffled, random = tables
    assert not torch.equal(own, shuffled)
    torch.testing.assert_close(own.norm(dim=1).sort().values, shuffled.norm(dim=1).sort().values)
    assert not torch.allclose(random, own)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"modalities": ["text"], "without": ["imse"]}, "modalities has no id"),
        ({"modalities": ["id"], "without": ["concl"]}, "modalities has neither text nor image"),
        ({"without": ["cmse", "mmsd"]}, "leaves nothing that reads content"),
    ],
)
def test_a_combination_without_meaning_is_refused_with_the_reason_and_the_model_file_stays(after, changes, reason):
    workspace = after("posttrain")
    before = WEIGHTS.read_bytes()
    workspace.set_params(**changes)
    with pytest.raises(InputError, match=f"params.yaml: without=.*{reason}"):
        workspace.run("posttrain")
    assert WEIGHTS.read_bytes() == before
