import io
import zipfile

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from stages.encoders.image import decode_covers, load_image_encoder, tiny_image_encoder
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


def jpeg(value):
    buffer = io.BytesIO()
    Image.fromarray(np.full((40, 50, 3), value, dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "Bili_Food_cover.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("v1.jpg", jpeg(10))
        file.writestr("v2.jpg", b"not a picture")
        file.writestr("v4.jpg", jpeg(200))
    return path


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


@pytest.mark.parametrize("workers", [0, 2])
def test_missing_and_unreadable_covers_are_counted(archive, workers):
    covers = decode_covers(
        archive, ["v1", "v2", "v3", "v4"], [True, True, False, True], tiny_image_encoder("head"), workers
    )
    assert covers.readable.tolist() == [True, False, False, True]
    assert (covers.missing, covers.unreadable) == (1, 1)
    assert covers.pixels.shape == (4, 3, 64, 64)
    assert covers.pixels[3].mean() > covers.pixels[0].mean()


def test_a_dataset_without_covers_says_how_to_go_on(tmp_path):
    with pytest.raises(InputError, match=r"Bili_Food has no covers.*modalities=\[id,text\]"):
        decode_covers(tmp_path / "Bili_Food_cover.zip", ["v1"], [False], tiny_image_encoder("head"), 0)


def test_an_absent_encoder_is_an_input_error(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="image_encoder=no_such_model"):
        load_image_encoder("no_such_model", "head")
