import json
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.encoders.text_loading import load_text_encoder
from stages.errors import InputError

EMBEDDINGS = Path("artifacts/embeddings.parquet")
FOR_BASELINES = Path("artifacts/embeddings_baselines.parquet")
COVERS = Path("artifacts/raw/sample_cover.zip")


def rewrite_covers(change) -> None:
    """Every cover through change(name, content) → content, or None to leave it out."""
    with zipfile.ZipFile(COVERS) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(COVERS, "w") as file:
        for name, content in contents.items():
            if (changed := change(name, content)) is not None:
                file.writestr(name, changed)


def test_every_item_has_a_vector_of_each_modality_in_the_items_order(after):
    after("embed")
    frame = pl.read_parquet(EMBEDDINGS)
    assert frame["item"].to_list() == list(range(1, 41))
    assert frame.schema["text"] == pl.Array(pl.Float32, 128)
    assert frame.schema["image"] == pl.Array(pl.Float32, 128)
    assert np.isfinite(frame["text"].to_numpy()).all()


def test_sorting_by_length_gives_each_title_its_own_vector(after):
    after("embed")
    titles = pl.read_parquet("artifacts/split/items.parquet")["title_zh"].to_list()
    encoder = load_text_encoder(str(Path("artifacts/encoders/text").resolve()), "auto", 64)
    encoder.model.eval()
    vectors = pl.read_parquet(EMBEDDINGS)["text"].to_numpy()
    with torch.inference_mode():
        for index in (0, 7, 39):
            inputs = encoder.prepare([titles[index]])
            own = encoder.pool(encoder.states(inputs), inputs)[0]
            torch.testing.assert_close(torch.tensor(vectors[index]), own, rtol=1e-4, atol=1e-5)


def test_a_device_with_bfloat16_gives_the_same_vectors_but_for_rounding(after, monkeypatch):
    workspace = after("embed")
    plain = pl.read_parquet(EMBEDDINGS)["text"].to_numpy()
    monkeypatch.setattr("stages.parallel.device.uses_bfloat16", lambda device: True)
    workspace.run("embed")
    rounded = pl.read_parquet(EMBEDDINGS)["text"].to_numpy()
    assert 0 < np.abs(rounded - plain).max() < 0.05


def test_an_unreadable_cover_is_counted_and_takes_the_mean_of_the_others(after):
    workspace = after("embed")
    whole = pl.read_parquet(EMBEDDINGS)["image"].to_numpy()
    items = pl.read_parquet("artifacts/split/items.parquet")
    unread = int(items["cover"].arg_true()[4])
    rewrite_covers(lambda name, content: b"not a picture" if name == f"{items['raw_id'][unread]}.jpg" else content)
    workspace.run("embed")
    assert json.loads(Path("metrics/embed.json").read_text())["unreadable_covers"] == 1
    vectors = pl.read_parquet(EMBEDDINGS)["image"].to_numpy()
    covered = items["cover"].to_numpy().copy()
    covered[unread] = False
    np.testing.assert_allclose(vectors[covered], whole[covered], rtol=1e-4, atol=1e-5)
    mean = np.broadcast_to(whole[covered].mean(axis=0), vectors[~covered].shape)
    np.testing.assert_allclose(vectors[~covered], mean, rtol=1e-4, atol=1e-5)


def test_the_other_systems_read_the_same_vectors(after):
    after("embed")
    assert pl.read_parquet(FOR_BASELINES).equals(pl.read_parquet(EMBEDDINGS))


def test_with_embeddings_frozen_they_read_the_vectors_from_before_fine_tuning(after):
    workspace = after("embed")
    tuned = pl.read_parquet(EMBEDDINGS)
    workspace.set_params(baseline={"embeddings": "frozen"})
    workspace.run("embed")
    assert pl.read_parquet(EMBEDDINGS).equals(tuned)
    frozen = pl.read_parquet(FOR_BASELINES)
    workspace.set_params(sft={"tasks": []})
    workspace.run("sft", "embed")
    for modality in ("text", "image"):
        untuned = pl.read_parquet(EMBEDDINGS)[modality].to_numpy()
        np.testing.assert_allclose(frozen[modality].to_numpy(), untuned, rtol=1e-5, atol=1e-6)
        assert not np.allclose(tuned[modality].to_numpy(), untuned, rtol=1e-2, atol=1e-3)


def test_an_archive_without_a_readable_cover_is_an_input_error_and_leaves_the_vectors_as_they_were(after):
    workspace = after("embed")
    before = EMBEDDINGS.read_bytes()
    rewrite_covers(lambda name, content: b"not a picture")
    with pytest.raises(InputError, match="holds no readable cover"):
        workspace.run("embed")
    assert EMBEDDINGS.read_bytes() == before


def test_an_encoder_that_tells_no_titles_apart_is_refused_by_name_and_the_vectors_stay(after):
    workspace = after("embed")
    before = EMBEDDINGS.read_bytes()
    weights = load_file("artifacts/encoders/text/model.safetensors")
    save_file(
        {name: torch.zeros_like(value) for name, value in weights.items()},
        "artifacts/encoders/text/model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(InputError, match="text: .* check text_encoder"):
        workspace.run("embed")
    assert EMBEDDINGS.read_bytes() == before
