import pytest
import torch

from stages.errors import InputError
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.training.checkpoints import load_weights, read_config, save_model, state_path

CONFIG = SicsrecConfig(
    items=5, dim=8, layers=1, decoder_layers=1, heads=2, dropout=0.5, item_dropout=0.5, max_length=6,
    tau=0.05, alpha=0.3, lam=1e-4, rank=2, widths={"text": 6}, use_id=True, without=("cmse",), frozen=("id_encoder",),
)  # fmt: skip


def test_a_saved_model_comes_back_with_its_configuration_and_weights(tmp_path):
    model = Sicsrec(CONFIG)
    save_model(tmp_path / "model.safetensors", model, {"artifacts/split": "s"})
    assert SicsrecConfig(**read_config(tmp_path / "model.safetensors")) == CONFIG
    again = Sicsrec(CONFIG)
    load_weights(tmp_path / "model.safetensors", again)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_a_missing_model_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="dvc repro"):
        read_config(tmp_path / "model.safetensors")


def test_the_state_s_name_follows_settings_and_inputs(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    data = tmp_path / "data"
    data.write_text("a")
    first = state_path("pretrain", [1], [data])
    assert state_path("pretrain", [1], [data]) == first
    assert state_path("pretrain", [2], [data]) != first
    data.write_text("b")
    assert state_path("pretrain", [1], [data]) != first
    assert first.is_relative_to(tmp_path / ".cache")
