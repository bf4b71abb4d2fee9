import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from stages import fuse
from stages.errors import InputError
from stages.params import load_params
from stages.training.fusion import choose_weights, load_for_fusion, load_system, model_path
from stages.training.next_item import TrainingData
from stages.training.ranking import rank_users

CPU = torch.device("cpu")
SPLIT = Path("artifacts/split")
RANKS, METRICS = Path("artifacts/ranks/fused.parquet"), Path("metrics/fuse.json")
FUSED = {"baselines": ["pop", "missrec_t_id"], "baseline": {"epochs": 2, "batch_positions": 256}}


def fused(workspace, **changes) -> dict:
    """What metrics/fuse.json has after missrec_t_id was trained and fused."""
    workspace.set_params(**FUSED, **({"fuse": ["sicsrec", "missrec_t_id"]} | changes))
    for name in FUSED["baselines"]:
        workspace.run_baseline(name)
    workspace.run("fuse")
    return json.loads(METRICS.read_text())


def test_the_ranks_are_those_of_a_plain_loop_over_users(after):
    workspace = after("pretrain")
    workspace.set_params(content_weight=0.4)
    workspace.run("posttrain")
    weights = fused(workspace, content_weight=0.4)["weights"]
    train, valid, test = (pl.read_parquet(SPLIT / f"{name}.parquet") for name in ("train", "valid", "test"))
    models = {name: load_system(name) for name in weights}
    assert models["sicsrec"].config.content_weight == 0.4
    ranks = pl.read_parquet(RANKS)
    assert ranks["user"].to_list() == test["user"].to_list()
    for user in range(0, len(test), 7):
        history = [*train["items"][user], valid["item"][user]]
        total = np.zeros(40)
        for name, model in models.items():
            with torch.inference_mode():
                hidden, items = model.last_hidden(torch.tensor([history])), model.item_matrix()
                scores = model.scores(hidden, items) if hasattr(model, "scores") else hidden @ items.T
            numbers = scores[0].double().numpy()
            total += weights[name] * (numbers - numbers.mean()) / numbers.std()
        target = test["item"][user]
        above = {item for item in range(1, 41) if total[item - 1] >= total[target - 1]}
        assert ranks["rank"][user] == len(above)
        assert ranks["rank_filtered"][user] == len(above - set(history) | {target})


def test_the_weights_are_the_best_of_the_twentieths_by_the_monitor_and_the_metrics_are_means_of_the_ranks(after):
    found = fused(after("posttrain"), monitor="filtered.hit@5")
    assert found["tried"].keys() == {f"{n / 20} {round(1 - n / 20, 2)}" for n in range(21)}
    assert found["validation"] == max(found["tried"].values())
    assert found["tried"][" ".join(str(found["weights"][name]) for name in ("sicsrec", "missrec_t_id"))] == max(
        found["tried"].values()
    )
    assert found["validation_alone"] == {
        "sicsrec": found["tried"]["1.0 0.0"],
        "missrec_t_id": found["tried"]["0.0 1.0"],
    }
    ranks = pl.read_parquet(RANKS)
    assert found["hit@5"] == np.mean(ranks["rank"].to_numpy() <= 5)
    assert found["filtered"]["hit@10"] == np.mean(ranks["rank_filtered"].to_numpy() <= 10)


def test_the_weights_are_chosen_without_the_test_items(after):
    workspace = after("posttrain")
    expected = fused(workspace)
    (SPLIT / "test.parquet").unlink()
    params, names = load_params(), ("sicsrec", "missrec_t_id")
    data = TrainingData.read(SPLIT, *map(model_path, names))
    weights, tried = choose_weights(
        [load_system(name) for name in names], data, monitor=params.monitor, max_length=50, device=torch.device("cpu")
    )
    assert dict(zip(names, weights, strict=True)) == expected["weights"]
    assert tried[weights] == expected["validation"]


def test_three_systems_are_a_row_of_the_table_with_a_p_value_and_their_weights(after):
    workspace = after("evaluate")
    found = fused(workspace, fuse=["sicsrec", "id_encoder", "missrec_t_id"])
    workspace.run("report")
    table = json.loads(Path("metrics/table4.json").read_text())
    for protocol, values in (("kept", found), ("filtered", found["filtered"])):
        part = table[f"viewed_items_{protocol}"]
        row = part["systems"]["fused"]
        assert row["ndcg@10"] == values["ndcg@10"]
        assert 0 <= row["p"] <= 1
        assert all(best["system"] != "fused" for best in part["best_other"].values())
    lines = Path("metrics/table4.md").read_text()
    assert "| fused |" in lines
    assert f"fused: the sum of standardised scores, {found['weights']['id_encoder']:g} id_encoder + " in lines


def test_scores_of_itemknn_can_be_added(after):
    workspace = after("posttrain")
    workspace.set_params(baselines=["itemknn"], fuse=["sicsrec", "id_encoder", "itemknn"])
    workspace.run_baseline("itemknn")
    workspace.run("fuse")
    assert json.loads(METRICS.read_text())["weights"].keys() == {"sicsrec", "id_encoder", "itemknn"}


def test_of_a_system_that_counts_the_roots_are_added_which_have_its_ranks(after):
    workspace = after("embed")
    workspace.run_baseline("itemknn")
    data, test = TrainingData.read(SPLIT), pl.read_parquet(SPLIT / "test.parquet")
    model = load_for_fusion("itemknn", CPU)
    history = torch.tensor(pl.read_parquet(SPLIT / "train.parquet")["items"].to_list()[:1])
    counted = load_system("itemknn")
    counts = counted.scores(counted.last_hidden(history), counted.item_matrix())
    torch.testing.assert_close(model.scores(model.last_hidden(history), model.item_matrix()) ** 2, counts)
    kept, filtered = rank_users(model, data.before_test(test), test["item"].to_numpy(), max_length=50, device=CPU)
    ranks = pl.read_parquet("artifacts/ranks/itemknn.parquet")
    assert (ranks["rank"].to_list(), ranks["rank_filtered"].to_list()) == (kept.tolist(), filtered.tolist())


def test_a_system_that_was_skipped_is_refused(after):
    workspace = after("posttrain")
    workspace.set_params(modalities=["id", "text"], baselines=["missrec_v_id"], baseline={"absent": "skip"})
    workspace.run_baseline("missrec_v_id")
    workspace.set_params(baselines=["missrec_v_id"], fuse=["sicsrec", "missrec_v_id"])  # after it, with images
    with pytest.raises(InputError, match="missrec_v_id was skipped: leave it out"):
        workspace.run("fuse")
    assert not METRICS.exists()


def test_the_line_on_the_screen_has_the_weights(after):
    weights = fused(after("posttrain"))["weights"]
    assert fuse.main().startswith(f"{weights['sicsrec']:g} sicsrec + {weights['missrec_t_id']:g} missrec_t_id, ")


def test_without_fuse_the_outputs_are_empty_and_the_table_has_no_such_row(after):
    workspace = after("evaluate")
    workspace.run("fuse", "report")
    assert json.loads(METRICS.read_text()) == {}
    assert len(pl.read_parquet(RANKS)) == 0
    assert "fused" not in Path("metrics/table4.md").read_text()


def test_models_of_systems_that_are_no_longer_listed_are_removed(after):
    workspace = after("posttrain")
    fused(workspace)
    workspace.set_params(baselines=["pop"])
    workspace.run("fuse")
    assert [path.name for path in Path("artifacts/baselines").iterdir()] == ["pop.safetensors"]


def test_a_model_of_another_version_of_the_split_is_refused(after):
    workspace = after("posttrain")
    fused(workspace)
    before = METRICS.read_bytes()
    workspace.set_params(**FUSED, fuse=["sicsrec", "missrec_t_id"], split={"min_interactions": 6})
    workspace.run("split")
    with pytest.raises(InputError, match="do not belong together"):
        workspace.run("fuse")
    assert METRICS.read_bytes() == before
