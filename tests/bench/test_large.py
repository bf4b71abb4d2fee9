import subprocess

import polars as pl
import pytest

from stages.bench.large import make_workspace, measured_split
from stages.bench.measured import measured
from stages.data.ninerec import read_items, scan_pairs


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    make_workspace(folder, users=200, items=1000, interactions=20_000)
    return folder


def test_the_dataset_is_in_the_layout_of_ninerec_and_popularity_follows_zipf(workspace):
    raw = workspace / "artifacts" / "raw"
    items = read_items(raw / "large_item.csv")
    pairs = scan_pairs(raw / "large_pair.csv", items["raw_id"]).collect()
    assert (items.height, pairs.height) == (1000, 20_000)
    counts = pairs["raw_item"].value_counts().sort("count", descending=True)["count"]
    assert counts[:10].sum() / counts.sum() == pytest.approx(1 / 3, abs=0.03)  # log 10 / log 1000
    assert pairs["raw_user"].n_unique() > 150


def test_the_split_is_measured_in_a_process_of_its_own(workspace):
    result = measured_split(workspace)
    assert (
        result["interactions"] == pl.read_parquet(workspace / "artifacts/split/full.parquet")["items"].list.len().sum()
    )
    assert 0 < result["seconds"] < 60
    assert 0.05 < result["peak_gb"] < 4


def test_the_peak_is_that_of_the_command_and_not_of_its_parent(tmp_path):
    held = bytearray(500_000_000)
    small = measured(["-c", "pass"], tmp_path)["peak_gb"]
    large = measured(["-c", "bytearray(200_000_000)"], tmp_path)["peak_gb"]
    assert small < 0.1 < 0.2 <= large < 0.4
    del held


def test_a_command_that_fails_is_an_error(tmp_path):
    with pytest.raises(subprocess.CalledProcessError, match="returned non-zero exit status 3"):
        measured(["-c", "raise SystemExit(3)"], tmp_path)
