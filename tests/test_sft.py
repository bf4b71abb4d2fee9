import json
import zipfile
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.errors import InputError
from stages.files import write_parquet
from stages.provenance import check_inputs, recorded
from stages.training import fit

SUMMARY = Path("artifacts/curves/sft/summary.json")


def summary() -> dict:
    return json.loads(SUMMARY.read_text())


def test_tuning_brings_an_item_s_title_and_cover_together(after):
    workspace = after("pairs")
    workspace.set_params(sft={"tasks": ["t2i"], "epochs": 6, "batch_size": 16})
    workspace.run("sft")
    before, now = (summary()["alignment"][when]["t2i"] for when in ("before", "after"))
    assert now["mean_rank"] < before["mean_rank"]
    assert now["positive"] - now["negative"] > before["positive"] - before["negative"]


def test_sft_tau_is_the_temperature_of_fine_tuning_alone(after):
    workspace = after("sft")
    by_tau = summary()
    workspace.set_params(tau=0.2, sft={"epochs": 2, "tau": 0.05})
    workspace.run("sft")
    assert summary() == by_tau
    workspace.set_params(tau=0.2)
    workspace.run("sft")
    assert summary()["loss"] != by_tau["loss"]


def test_a_catalogue_of_two_items_is_refused(after):
    workspace = after("pairs")
    items, pairs = Path("artifacts/split/items.parquet"), Path("artifacts/pairs.parquet")
    write_parquet(items, pl.read_parquet(items)[:2], recorded(items)[1])
    pair = pl.read_parquet(pairs)[:1].with_columns(target=pl.lit(1, pl.Int32), similar=pl.lit(2, pl.Int32))
    write_parquet(pairs, pair, check_inputs(items))
    with pytest.raises(InputError, match="items.parquet has 2 items, fine-tuning needs three: use more, or"):
        workspace.run("sft")


def test_each_loss_has_a_curve(after):
    after("sft")
    assert {"loss", "t2t", "i2i", "t2i"} <= set(summary()["loss"])
    curves = {path.stem for path in Path("artifacts/curves/sft/plots/metrics").rglob("*.tsv")}
    assert {"loss", "t2t", "i2i", "t2i"} <= curves


def test_no_tasks_skip_tuning_and_export_the_encoders_as_they_are(after):
    workspace = after("pairs")
    workspace.set_params(sft={"tasks": []})
    workspace.run("sft", "embed")
    assert "loss" not in summary()
    assert pl.read_parquet("artifacts/embeddings.parquet").columns == ["item", "text", "image"]


def test_text_alone_leaves_the_covers_unread(after):
    workspace = after("pairs")
    Path("artifacts/raw/sample_cover.zip").unlink()
    workspace.set_params(modalities=["id", "text"])
    workspace.run("sft")
    assert set(summary()["alignment"]["after"]) == {"t2t"}
    assert not Path("artifacts/encoders/image").exists()


def test_a_dataset_without_covers_says_which_modalities_to_ask_for(after):
    workspace = after("pairs")
    Path("artifacts/raw/sample_cover.zip").unlink()
    with pytest.raises(InputError, match=r"no covers .* run with -S 'modalities=\[id,text\]'"):
        workspace.run("sft")


def test_a_single_cover_is_refused_with_the_modality_to_leave_out(after):
    workspace = after("pairs")
    with zipfile.ZipFile("artifacts/raw/sample_cover.zip") as file:
        name = file.namelist()[0]
        content = file.read(name)
    with zipfile.ZipFile("artifacts/raw/sample_cover.zip", "w") as file:
        file.writestr(name, content)
    with pytest.raises(InputError, match="only one item has a readable image: leave image out of modalities"):
        workspace.run("sft")


@pytest.mark.parametrize("param", ["text_encoder", "image_encoder"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [("./no-such-folder", "there is no such folder"), ("nobody/nothing", "no folder of that name here; as a model's")],
)
def test_an_absent_encoder_names_the_param_and_writes_nothing(after, monkeypatch, param, name, reason):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    workspace = after("pairs")
    workspace.set_params(**{param: name})
    with pytest.raises(InputError, match=f"{param}={name} cannot be loaded .{reason}"):
        workspace.run("sft")
    assert not Path("artifacts/encoders").exists()


def test_an_encoder_with_weights_that_are_not_finite_is_named(after):
    workspace = after("sft")
    encoder = Path("artifacts/encoders/text").rename("encoder")
    weights = load_file(encoder / "model.safetensors")
    save_file({name: weight * torch.nan for name, weight in weights.items()}, encoder / "model.safetensors")
    workspace.set_params(text_encoder="encoder")
    with pytest.raises(InputError, match="text: vectors are not finite before fine-tuning: check text_encoder"):
        workspace.run("sft")


def interrupt_after_the_first_epoch(workspace, monkeypatch) -> None:
    """Run sft until the state of its first epoch is on disk."""

    save = fit._save

    def save_and_stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit, "SECONDS_BETWEEN_STATES", -1.0)
        patch.setattr(fit, "_save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            workspace.run("sft")


@pytest.mark.parametrize("changed", ["nothing", "weights", "covers"])
def test_an_interrupted_run_is_continued_with_the_same_weights_and_covers_only(after, monkeypatch, capsys, changed):
    workspace = after("sft")
    encoder = Path("artifacts/encoders/text").rename("encoder")
    workspace.set_params(text_encoder="encoder", sft={"epochs": 2})
    interrupt_after_the_first_epoch(workspace, monkeypatch)
    if changed == "weights":
        weights = load_file(encoder / "model.safetensors")
        save_file({name: weight * 0.9 for name, weight in weights.items()}, encoder / "model.safetensors")
    if changed == "covers":
        with zipfile.ZipFile("artifacts/raw/sample_cover.zip") as file:
            contents = {name: file.read(name) for name in file.namelist()}
        with zipfile.ZipFile("artifacts/raw/sample_cover.zip", "w") as file:
            for name, content in zip(contents, reversed(contents.values()), strict=True):
                file.writestr(name, content)
    workspace.run("sft")
    assert ("continues after epoch 1" in capsys.readouterr().out) == (changed == "nothing")


def test_id_alone_needs_no_encoder(after):
    workspace = after("pairs")
    workspace.set_params(modalities=["id"])
    workspace.run("sft", "embed")
    assert pl.read_parquet("artifacts/embeddings.parquet").columns == ["item"]


def test_without_pairs_the_encoders_stay_as_they_are(after, capsys):
    workspace = after("pairs")
    pairs = Path("artifacts/pairs.parquet")
    write_parquet(pairs, pl.read_parquet(pairs).clear(), recorded(pairs)[1])
    workspace.set_params(modalities=["id", "image"])
    workspace.run("sft", "embed")
    assert "the encoders are not fine-tuned" in capsys.readouterr().out
    assert "image" in pl.read_parquet("artifacts/embeddings.parquet").columns
