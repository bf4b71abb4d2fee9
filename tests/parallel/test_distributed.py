"""Two processes train and rank as one process does: the same stages and params, compared file by file."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from ruamel.yaml import YAML

from stages.encoders.text import tiny_text_encoder
from stages.parallel import distributed

ROOT = Path(__file__).parents[2]
SYSTEMS = ("gru4rec", "bert4rec", "unisrec_t_id")
SIMILAR = ("missrec_tv_id", "llmesr_t_id")  # rounding can change a cluster, and teachers draw their own random numbers
STAGES = (
    "sft", "embed", "neighbours", "pretrain", "posttrain", "evaluate",
    *(f"baseline:{name}" for name in (*SYSTEMS, *SIMILAR)),
    "fuse", "distill",
)  # fmt: skip


def run(folder: Path, *launcher: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("DVC_ROOT", None)
    command = [sys.executable, "-m", *launcher, "tests.run_stages", *STAGES]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


def save_text_encoder_without_dropout(workspace: Path) -> None:
    """Dropout inside an encoder draws other numbers in each process, so this encoder has none."""
    titles = pl.read_parquet(workspace / "artifacts/split/items.parquet")["title_zh"].to_list()
    torch.manual_seed(0)
    encoder = tiny_text_encoder(titles, "cls", 64)
    encoder.model.config.hidden_dropout_prob = encoder.model.config.attention_probs_dropout_prob = 0.0
    encoder.save(workspace / "bert")
    yaml = YAML()
    params = yaml.load(workspace / "params.yaml")
    params["text_encoder"] = "bert"
    params |= {"smoothing": 0.1, "content_weight": 0.3}
    params |= {"baselines": ["gru4rec"], "fuse": ["sicsrec", "gru4rec"], "distill": 2}
    yaml.dump(params, workspace / "params.yaml")


@pytest.fixture(scope="module")
def folders(made, tmp_path_factory) -> tuple[Path, Path]:
    """Two workspaces: in one a single process has run the stages, in the other two processes."""
    place = tmp_path_factory.mktemp("processes")
    for name in ("one", "two"):
        shutil.copytree(made("pairs"), place / name)
        save_text_encoder_without_dropout(place / name)
    run(place / "one")
    run(place / "two", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    return place / "one", place / "two"


def assert_close(left: object, right: object, tolerance: float = 1e-4) -> None:
    """Nested dicts with the same keys, and with numbers that are equal within the tolerance."""
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_close(left[key], right[key], tolerance)
    else:
        assert right == pytest.approx(left, abs=tolerance)


@pytest.mark.parametrize("name", ["metrics/evaluate.json", *(f"artifacts/ranks/{name}.json" for name in SYSTEMS)])
def test_metrics_are_the_same(folders, name):
    assert_close(*(json.loads((folder / name).read_text()) for folder in folders))


@pytest.mark.parametrize("name", SIMILAR)
def test_losses_of_systems_with_clusters_or_teachers_are_similar(folders, name):
    losses = [json.loads((folder / f"artifacts/ranks/{name}.json").read_text())["loss"] for folder in folders]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize("name", ["pretrain", "posttrain", "distill"])
def test_losses_and_validation_metrics_are_the_same(folders, name):
    assert_close(*(json.loads((folder / f"artifacts/curves/{name}/summary.json").read_text()) for folder in folders))


def test_losses_of_fine_tuning_are_the_same(folders):
    assert_close(
        *(json.loads((folder / "artifacts/curves/sft/summary.json").read_text())["loss"] for folder in folders)
    )


def test_vectors_of_the_tuned_encoders_are_the_same(folders):
    one, two = (pl.read_parquet(folder / "artifacts/embeddings.parquet") for folder in folders)
    for name in ("text", "image"):
        torch.testing.assert_close(one[name].to_torch(), two[name].to_torch(), atol=1e-4, rtol=0)


def test_only_one_process_writes_files(folders):
    _, two = folders
    assert not list(two.rglob("*.tmp"))
    curve = two / "artifacts/curves/pretrain/plots/metrics/loss.tsv"
    assert len(curve.read_text().splitlines()) == 3  # a header and one line per epoch


def test_the_mean_over_one_process_is_the_plain_mean():
    values = torch.tensor([1.0, 2.0, 6.0])
    assert distributed.mean_across_ranks(values) == 3


def test_random_numbers_are_drawn_for_all_rows_of_the_batch(monkeypatch):
    monkeypatch.setattr(distributed, "_shard", distributed.Shard(first=2, own=3, total=8))
    assert distributed.random_shape((3, 5)) == ((8, 5), slice(2, 5))
    assert distributed.random_shape((4, 5)) == ((4, 5), slice(None))
