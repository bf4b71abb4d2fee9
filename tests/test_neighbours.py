from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from stages.errors import InputError
from stages.files import read_vectors
from stages.models.nearest import NEIGHBOURS, TEMPERATURE
from stages.neighbours import find_neighbours
from stages.training.smoothing import read_smoothing

FILE = Path("artifacts/neighbours.parquet")


def test_the_neighbours_are_those_of_a_loop_over_all_pairs(after):
    workspace = after("embed")
    workspace.set_params(smoothing=0.1, modalities=["id", "text"])
    workspace.run("neighbours")
    vectors = read_vectors(Path("artifacts/embeddings.parquet"), ["text"])["text"]
    vectors = vectors - vectors.mean(axis=0)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    frame = pl.read_parquet(FILE)
    for item in range(40):
        cosines = units @ units[item]
        cosines[item] = -2
        best = np.sort(cosines)[::-1][:NEIGHBOURS]
        share = np.exp(best / TEMPERATURE)
        assert len(set(frame["items"][item])) == NEIGHBOURS
        np.testing.assert_allclose(cosines[frame["items"][item].to_numpy() - 1], best, atol=1e-6)  # titles may be equal
        np.testing.assert_allclose(frame["weights"][item].to_list(), share / share.sum(), rtol=1e-4)


def test_an_item_without_a_cover_is_its_own_neighbour_so_that_it_is_not_smoothed(monkeypatch):
    covers = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    covers[7] = np.delete(covers, 7, axis=0).mean(axis=0)  # as `embed` writes it
    monkeypatch.setattr("stages.neighbours.read_vectors", lambda path, names: {"image": covers})
    items = find_neighbours(["image"])["items"].to_list()
    assert items[7] == [8] * NEIGHBOURS
    assert all(item not in found for item, found in enumerate(items, 1) if item != 8)


def test_without_smoothing_the_file_is_the_same_for_other_vectors(after):
    workspace = after("embed")
    workspace.run("neighbours")
    before = FILE.read_bytes()
    workspace.set_params(seed=5)
    workspace.run("embed", "neighbours")
    assert FILE.read_bytes() == before
    assert read_smoothing(0.0) is None


def test_both_steps_train_on_smoothed_targets(after):
    workspace = after("posttrain")
    workspace.set_params(smoothing=0.2)
    workspace.run("neighbours")
    smoothing = read_smoothing(0.2)
    assert smoothing.items.shape == smoothing.weights.shape == (40, NEIGHBOURS)
    torch.testing.assert_close(smoothing.weights.sum(dim=1), torch.ones(40))
    for stage, model in (("pretrain", "id_encoder"), ("posttrain", "sicsrec")):
        plain = load_file(f"artifacts/{model}.safetensors")["item_embedding.weight"]
        workspace.run(stage)
        assert not torch.equal(load_file(f"artifacts/{model}.safetensors")["item_embedding.weight"], plain)


def test_neighbours_of_other_vectors_are_refused(after):
    workspace = after("posttrain")
    workspace.set_params(smoothing=0.2)
    workspace.run("neighbours")
    workspace.set_params(smoothing=0.2, seed=5)
    workspace.run("sft", "embed")
    with pytest.raises(InputError, match="do not belong together"):
        workspace.run("posttrain")


def test_a_missing_file_is_named(after):
    workspace = after("embed")
    workspace.set_params(smoothing=0.2)
    with pytest.raises(InputError, match=r"neighbours.parquet is missing"):
        workspace.run("pretrain")
