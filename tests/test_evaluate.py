import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from stages.errors import InputError
from stages.evaluate import load
from stages.parallel.device import choose_device


def test_the_ranks_are_those_of_a_plain_loop_over_users(after):
    after("evaluate")
    train, valid, test = (pl.read_parquet(f"artifacts/split/{name}.parquet") for name in ("train", "valid", "test"))
    device = choose_device("cpu")
    for name in ("sicsrec", "id_encoder"):
        model = load(name, device)
        ranks = pl.read_parquet(f"artifacts/ranks/{name}.parquet")
        for user in (0, 13, 79):
            history = [*train["items"][user], valid["item"][user]]
            with torch.inference_mode():
                scores = (model.last_hidden(torch.tensor([history])) @ model.item_matrix().T)[0].numpy()
            target = test["item"][user] - 1
            above = {item for item, score in enumerate(scores, start=1) if score >= scores[target]}
            assert ranks["rank"][user] == len(above)
            assert ranks["rank_filtered"][user] == len(above - set(history) | {target + 1})


def test_the_metrics_are_the_means_of_the_ranks(after):
    after("evaluate")
    written = json.loads(Path("metrics/evaluate.json").read_text())
    ranks = pl.read_parquet("artifacts/ranks/sicsrec.parquet")
    assert written["hit@5"] == np.mean(ranks["rank"].to_numpy() <= 5)
    assert written["filtered"]["hit@10"] == np.mean(ranks["rank_filtered"].to_numpy() <= 10)


def test_the_main_metrics_are_five_of_evaluate_json(after):
    after("evaluate")
    written = json.loads(Path("metrics/evaluate.json").read_text())
    main = json.loads(Path("metrics/main.json").read_text())
    assert main.keys() == {"ndcg@10", "hit@10", "filtered", "id_encoder"}
    assert [main["ndcg@10"], main["hit@10"]] == [written["ndcg@10"], written["hit@10"]]
    assert main["filtered"] == {name: written["filtered"][name] for name in ("ndcg@10", "hit@10")}
    assert main["id_encoder"] == {"ndcg@10": written["id_encoder"]["ndcg@10"]}


def test_without_a_model_it_says_what_to_run_and_keeps_the_metrics(after):
    workspace = after("evaluate")
    before = Path("metrics/evaluate.json").read_bytes()
    Path("artifacts/sicsrec.safetensors").unlink()
    with pytest.raises(InputError, match="sicsrec.safetensors is missing: run `dvc repro`"):
        workspace.run("evaluate")
    assert Path("metrics/evaluate.json").read_bytes() == before
