import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from stages.baseline import SPLIT
from stages.data.histories import Histories
from stages.errors import InputError
from stages.models.systems import SYSTEMS
from stages.training.baselines import latest_inputs
from stages.training.fusion import load_system, model_path
from stages.training.next_item import TrainingData
from stages.training.ranking import rank_users


def test_the_last_training_item_is_not_among_the_inputs():
    lists = [[1, 2, 3], [4, 5], [1], [6, 7, 8, 9]]
    histories = Histories(np.concatenate(lists), np.cumsum([0, *map(len, lists)]))
    assert latest_inputs(histories, 5).tolist() == [[1, 2, 0], [4, 0, 0], [1, 0, 0], [6, 7, 8]]
    assert latest_inputs(histories, 2).tolist() == [[1, 2], [4, 0], [1, 0], [7, 8]]


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_trains_and_is_ranked(after, name):
    workspace = after("embed")
    workspace.set_params(baseline={"epochs": 1, "batch_positions": 256})
    workspace.run_baseline(name)
    ranks = pl.read_parquet(f"artifacts/ranks/{name}.parquet")
    assert ranks.columns == ["user", "rank", "rank_filtered"]
    assert ranks["rank"].is_between(1, 40).all()
    assert (ranks["rank_filtered"] <= ranks["rank"]).all()
    assert "ndcg@10" in json.loads(Path(f"artifacts/ranks/{name}.json").read_text())


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_is_saved_and_the_loaded_one_has_the_same_ranks(after, name):
    workspace = after("embed")
    workspace.set_params(baseline={"epochs": 1, "batch_positions": 256})
    workspace.run_baseline(name)
    data, test = TrainingData.read(SPLIT, model_path(name)), pl.read_parquet(SPLIT / "test.parquet")
    kept, filtered = rank_users(
        load_system(name), data.before_test(test), test["item"].to_numpy(), max_length=50, device=torch.device("cpu")
    )
    ranks = pl.read_parquet(f"artifacts/ranks/{name}.parquet")
    assert ranks["rank"].to_list() == kept.tolist()
    assert ranks["rank_filtered"].to_list() == filtered.tolist()


def test_sasrec_is_the_id_encoder(after):
    workspace = after("evaluate")
    workspace.set_params(baseline={"epochs": 2, "batch_positions": 256})
    workspace.run_baseline("sasrec")
    ranks, of_encoder = (pl.read_parquet(f"artifacts/ranks/{name}.parquet") for name in ("sasrec", "id_encoder"))
    assert ranks.equals(of_encoder)


def test_the_table_names_a_skipped_system_and_the_modality_that_it_lacks(after):
    workspace = after("evaluate")
    workspace.set_params(modalities=["id", "text"], baselines=["pop", "missrec_tv_id"], baseline={"absent": "skip"})
    workspace.run_baseline("pop")
    workspace.run_baseline("missrec_tv_id")
    workspace.run("report")
    table = Path("metrics/table4.md").read_text()
    assert "Skipped: missrec_tv_id reads image, which modalities=['id', 'text'] lacks." in table
    assert "| pop |" in table and "| missrec_tv_id |" not in table
    assert sorted(path.name for path in Path("metrics/baselines").iterdir()) == ["pop.json"]


def test_an_unknown_system_is_named_with_those_that_there_are(after):
    workspace = after("split")
    with pytest.raises(InputError, match="there is no 'sasrek'; there are pop, itemknn"):
        workspace.run_baseline("sasrek")
