import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from stages import export
from stages.errors import InputError
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.training.checkpoints import load_model
from stages.training.recommending import best_items

ROOT = Path(__file__).parents[1]
SERVE = """
import json, sys
{code}
print(json.dumps([recommend(history) for history in json.load(open("histories.json"))]))
assert not {{"torch", "stages"}} & sys.modules.keys()
"""


def run_export(*options: str) -> str:
    """In a process of its own: the shape checks of the tests would make the exported sizes constant."""
    command = [sys.executable, "-m", "stages.export", "exported", *options]
    run = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""})
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_page_s_own_code_serves_the_same_top_10_to_a_thousand_users_by_onnxruntime_alone(after):
    after("posttrain")
    said = run_export()
    assert "exported: 40 items; states of 80 users differ by" in said
    assert "recall@40 1.0000" in said
    model = load_model(Path("artifacts/sicsrec.safetensors"), Sicsrec, SicsrecConfig)
    ids = pl.read_parquet("artifacts/split/items.parquet")["raw_id"].to_list()
    rng = np.random.default_rng(0)
    histories = [rng.integers(1, 41, rng.integers(1, 80)).tolist() for _ in range(1000)]
    cpu, length = torch.device("cpu"), model.config.max_length
    expected = []
    for history in histories:
        best, _ = best_items(model, history, top=10, viewed=False, max_length=length, device=cpu)
        expected.append([ids[item - 1] for item in best])
    Path("exported/histories.json").write_text(json.dumps([[ids[item - 1] for item in h] for h in histories]))
    code = Path("exported/README.md").read_text().split("```python\n")[1].split("```")[0]
    run = subprocess.run(
        [sys.executable, "-c", SERVE.format(code=code)], cwd="exported", capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    served = json.loads(run.stdout)
    allowed = [len(items) for items in expected]  # who has viewed nearly all items has fewer left
    assert [items[:n] for items, n in zip(served, allowed, strict=True)] == expected
    vectors = pl.read_parquet("exported/item_vectors.parquet")
    assert vectors["raw_id"].to_list() == ids == pl.read_parquet("exported/items.parquet")["raw_id"].to_list()
    np.testing.assert_array_equal(vectors["vector"].to_numpy(), np.load("exported/item_vectors.npy"))


def test_the_distilled_model_is_exported_on_demand(after):
    workspace = after("posttrain")
    workspace.set_params(fuse=["sicsrec", "id_encoder"], distill=2)
    workspace.run("fuse", "distill")
    assert "states of 80 users differ by" in run_export("--model", "distilled")
    model = load_model(Path("artifacts/distilled.safetensors"), Sicsrec, SicsrecConfig)
    np.testing.assert_array_equal(np.load("exported/item_vectors.npy"), model.item_matrix().numpy())


def test_a_folder_that_exists_is_not_replaced(after, monkeypatch):
    after("posttrain")
    Path("mine").mkdir()
    monkeypatch.setattr(sys, "argv", ["export", "mine"])
    with pytest.raises(InputError, match="mine exists: name a new folder, or remove it"):
        export.main()


def test_without_a_model_nothing_is_written(after, monkeypatch):
    after("split")
    monkeypatch.setattr(sys, "argv", ["export", "exported"])
    with pytest.raises(InputError, match="sicsrec.safetensors is missing: run `dvc repro`"):
        export.main()
    assert not Path("exported").exists()
