"""`--system NAME`: recommendations by any trained system, and by the sum of those in `fuse`."""

import json
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

from stages import recommend
from stages.errors import InputError
from stages.models.sicsrec import Sicsrec
from stages.serving.recommendations import Choice, recommend_items
from stages.serving.systems import OtherSystem
from stages.training.fusion import SumOfScores
from tests.serving.test_recommendations import HISTORIES, requests

SPLIT = Path("artifacts/split")
TRAINED = {"baselines": ["itemknn", "missrec_t_id"], "baseline": {"epochs": 2, "batch_positions": 256}}
SUM = ["sicsrec", "itemknn", "missrec_t_id"]


def call(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["recommend", *arguments])
    recommend.main()


def histories_of_the_test(path: Path) -> pl.DataFrame:
    """What precedes each test item, as a file for --histories. → the test items' raw ids, by user."""
    train, valid, test = (pl.read_parquet(SPLIT / f"{name}.parquet") for name in ("train", "valid", "test"))
    raw = pl.read_parquet(SPLIT / "items.parquet")["raw_id"]
    users = [f"u{n}" for n in range(len(test))]
    items = [[*before, last] for before, last in zip(train["items"], valid["item"], strict=True)]
    frame = pl.DataFrame({"user": users, "item": items}).explode("item")
    frame.with_columns(item=raw.gather(frame["item"] - 1)).write_csv(path)
    return pl.DataFrame({"user": users, "item": raw.gather(test["item"] - 1)})


@pytest.mark.parametrize("name", ["id_encoder", "missrec_t_id", "fused", "distilled"])
def test_a_system_recommends_in_the_order_that_it_was_evaluated_in(after, monkeypatch, name):
    workspace = after("evaluate")
    workspace.set_params(**TRAINED, fuse=SUM, distill=2, monitor="filtered.ndcg@10")
    for system in TRAINED["baselines"]:
        workspace.run_baseline(system)
    workspace.run("fuse", "distill")
    wanted = histories_of_the_test(Path("histories.csv"))
    call(monkeypatch, "--histories", "histories.csv", "--system", name, "--top", "40", "--out", "out.csv")
    places = wanted.join(pl.read_csv("out.csv"), on=["user", "item"], how="left", maintain_order="left")
    ranks = pl.read_parquet(f"artifacts/ranks/{name}.parquet")
    shown = places["rank"].is_not_null()  # a target that was viewed before is not recommended again
    assert shown.sum() > 60
    assert places["rank"].filter(shown).to_list() == ranks["rank_filtered"].filter(shown).to_list()


def test_a_sum_of_scores_scores_all_items_at_once(trained):
    model: Sicsrec = trained.model
    total = SumOfScores([model, model], (0.5, 0.5))
    matrix = total.item_matrix()
    hidden = total.last_hidden(torch.tensor([[3, 1, 2]]))
    scores = total.scores(hidden, matrix)[0]
    assert float(scores.mean()) == pytest.approx(0, abs=1e-6)
    assert float(scores.std(correction=0)) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="all items at once"):
        total.scores(hidden, matrix[:3])


def test_a_model_that_scores_all_items_at_once_gets_fewer_users_among_many_items(trained, monkeypatch):
    alone = recommend_items(trained, requests(**HISTORIES), Choice(top=3))
    monkeypatch.setattr("stages.serving.recommendations.SCORES_PER_BLOCK", len(trained.matrix))
    monkeypatch.setattr("stages.training.recommending.SCORES_PER_CPU_BLOCK", len(trained.matrix))
    total = SumOfScores([trained.model], (1.0,))
    with torch.inference_mode():
        system = OtherSystem(total, total.item_matrix(), trained.items, trained.max_length, ())
        assert recommend_items(system, requests(**HISTORIES), Choice(top=3))["item"].equals(alone["item"])


def test_parts_of_different_runs_are_refused(after, monkeypatch):
    workspace = after("evaluate")
    together = {"baselines": ["itemknn"], "fuse": ["sicsrec", "id_encoder", "itemknn"]}
    workspace.set_params(**together)
    workspace.run_baseline("itemknn")
    workspace.run("fuse")
    metrics = json.loads(Path("metrics/fuse.json").read_text())
    Path("metrics/fuse.json").write_text(json.dumps(metrics | {"ndcg@10": metrics["ndcg@10"] / 2}))
    with pytest.raises(InputError, match="metrics/fuse.json and artifacts/ranks/fused.parquet are of different runs"):
        call(monkeypatch, "--history", "v1", "--system", "fused")
    workspace.set_params(**together, sequence={"max_length": 20})
    with pytest.raises(InputError, match="was trained with sequence.max_length=50, params.yaml has 20: run"):
        call(monkeypatch, "--history", "v1", "--system", "id_encoder")


def test_what_was_not_trained_is_refused_with_the_mend(after, monkeypatch):
    after("evaluate")
    with pytest.raises(InputError, match="unisrec_t was not trained: add it to `baselines` and run `dvc repro`"):
        call(monkeypatch, "--history", "v1", "--system", "unisrec_t")
    Path("artifacts/id_encoder.safetensors").unlink()
    with pytest.raises(InputError, match="id_encoder was not trained: run `dvc repro`"):
        call(monkeypatch, "--history", "v1", "--system", "id_encoder")
    with pytest.raises(InputError, match=r"metrics/fuse.json has no weights of fuse=\[\]: run `dvc exp run -S 'fuse="):
        call(monkeypatch, "--history", "v1", "--system", "fused")


def test_a_distilled_model_that_is_not_there_is_refused_with_the_mend(after, monkeypatch):
    workspace = after("evaluate")
    for run in ((), ("fuse", "distill")):  # no file, and the empty one of distill=0
        workspace.run(*run)
        with pytest.raises(InputError, match=r"distilled.safetensors holds no model: run `dvc exp run -S 'fuse="):
            call(monkeypatch, "--history", "v1", "--system", "distilled")


@pytest.mark.parametrize("option", [["--explain"], ["--new-items", "folder"]])
def test_what_only_sicsrec_has_is_refused_of_another_system(monkeypatch, option):
    with pytest.raises(InputError, match=f"{option[0]}: only sicsrec and distilled have it: leave out --system pop"):
        call(monkeypatch, "--history", "v1", "--system", "pop", *option)
