import subprocess

import polars as pl
import pytest

from stages.bench.large import make_workspace, measure_split
from stages.bench.subprocess_usage import subprocess_usage
from stages.data.ninerec import read_items, scan_pairs


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    make_workspace(folder, users=200, items=1000, interactions=20_000)
    return folder


def test_the_dataset_has_ninerec_s_layout_and_its_popularity_follows_zipf(workspace):
    raw = workspace / "artifacts" / "raw"
    items = read_items(raw / "large_item.csv")
    pairs = scan_pairs(raw / "large_pair.csv").collect()
    assert (items.height, pairs.height) == (1000, 20_000)
    counts = pairs["raw_item"].value_counts().sort("count", descending=True)["count"]
    assert counts[:10].sum() / counts.sum() == pytest.approx(1 / 3, abs=0.03)  # log 10 / log 1000
    assert pairs["raw_user"].n_unique() > 150


def test_time_and_memory_of_split_are_measured(workspace):
    result = measure_split(workspace)
    assert (
        result["interactions"] == pl.read_parquet(workspace / "artifacts/split/full.parquet")["items"].list.len().sum()
    )
    assert 0 < result["seconds"] < 60
    assert 0.05 < result["peak_gb"] < 4


def test_peak_memory_is_that_of_the_command_and_not_of_its_parent(tmp_path):
    memory_of_the_parent = bytearray(500_000_000)
    small = subprocess_usage(["-c", "pass"], tmp_path)["peak_gb"]
    large = subprocess_usage(["-c", "bytearray(200_000_000)"], tmp_path)["peak_gb"]
    assert small < 0.1 < 0.2 <= large < 0.4
    del memory_of_the_parent


def test_a_command_that_fails_is_an_error(tmp_path):
    with pytest.raises(subprocess.CalledProcessError, match="returned non-zero exit status 3"):
        subprocess_usage(["-c", "raise SystemExit(3)"], tmp_path)
