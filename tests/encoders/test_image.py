from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf

from stages.encoders.image import load_image_encoder, tiny_image_encoder
from stages.errors import InputError

FAMILIES = {
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
    "swin_tiny_patch4_window7_224": {
        "img_size": 64,
        "window_size": 2,
        "embed_dim": 8,
        "depths": (1, 1),
        "num_heads": (1, 2),
    },
    "resnet10t": {},
}


def saved(folder, name):
    """A small model of that family as timm saves it."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=12, **FAMILIES[name])
    save_for_hf(model, folder, model_args={"num_classes": 12, **FAMILIES[name]}, safe_serialization=True)
    return str(folder)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("feature", ["head", "pooled"])
def test_a_folder_of_each_family_loads(tmp_path, name, feature):
    encoder = load_image_encoder(saved(tmp_path, name), feature)
    encoder.model.eval()
    size = encoder.model.default_cfg["input_size"][-1] if name == "resnet10t" else FAMILIES[name]["img_size"]
    inputs = {"pixels": torch.randn(2, 3, size, size)}
    vectors = encoder.pool(encoder.states(inputs), inputs)
    assert vectors.shape == (2, 12 if feature == "head" else encoder.model.num_features)
    if feature == "head":
        torch.testing.assert_close(vectors, encoder.model(inputs["pixels"]))


def test_a_saved_encoder_gives_the_same_vectors(tmp_path):
    torch.manual_seed(0)
    encoder = tiny_image_encoder("head")
    encoder.save(tmp_path)
    again = load_image_encoder(str(tmp_path), "head")
    inputs = {"pixels": torch.randn(2, 3, 64, 64)}
    encoder.model.eval(), again.model.eval()
    assert torch.equal(again.pool(again.states(inputs), inputs), encoder.pool(encoder.states(inputs), inputs))


@pytest.mark.parametrize("config", [b"", b"{", b"null", b"[]", b"\xff\xfe"])
def test_a_folder_with_a_broken_config_is_one_line(tmp_path, config):
    saved(tmp_path, "vit_tiny_patch16_224")
    (tmp_path / "config.json").write_bytes(config)
    with pytest.raises(InputError, match="image_encoder=.* cannot be loaded"):
        load_image_encoder(str(tmp_path), "head")


@pytest.mark.parametrize("left", [0, 20, -10])
def test_weights_that_are_cut_short_are_to_be_got_again(tmp_path, left):
    weights = Path(saved(tmp_path, "vit_tiny_patch16_224")) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:left])
    with pytest.raises(InputError, match="a file of its weights is damaged .* get it again"):
        load_image_encoder(str(tmp_path), "head")


def test_an_absent_encoder_is_an_input_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="image_encoder=no_such_model"):
        load_image_encoder("no_such_model", "head")
