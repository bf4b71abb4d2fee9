"""A split by time through all stages that read it."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import torch

from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.training.checkpoints import load_model


def test_every_stage_reads_the_tables_of_a_split_by_time(after):
    workspace = after("download")
    workspace.set_params(
        split={"strategy": "time", "valid_from": 0.4, "test_from": 0.6},
        sft={"tasks": []},
        baselines=["pop", "sasrec"],
        refit=True,
    )
    workspace.run("split", "pairs", "sft", "embed", "pretrain", "posttrain", "baseline_code")
    for name in ("pop", "sasrec"):
        workspace.run_baseline(name)
        workspace.run_baseline(name, stage="refit_baseline")
    workspace.run("evaluate", "refit", "report")
    test, ranks = (pl.read_parquet(f"artifacts/{name}.parquet") for name in ("split/test", "ranks/sicsrec"))
    assert ranks["user"].to_list() == test["user"].to_list()
    model = load_model(Path("artifacts/sicsrec.safetensors"), Sicsrec, SicsrecConfig)
    history, target = test["history"][1].to_list(), test["item"][1]
    with torch.no_grad():
        scores = model.last_hidden(torch.tensor([history[-50:]])) @ model.item_matrix().T
    assert ranks["rank"][1] == int((scores >= scores[0, target - 1]).sum())
    groups = json.loads(Path("metrics/groups.json").read_text())["viewed_items_kept"]
    lengths = np.array(test["history"].list.len())
    assert [group["users"] for group in groups["history_length"].values()][0] == int((lengths <= 4).sum())
    for name in ("pop", "sasrec", "sasrec_refit", "sicsrec_refit"):
        assert pl.read_parquet(f"artifacts/ranks/{name}.parquet").height == test.height
