import json

import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetForImageClassification,
    SiglipVisionConfig,
    SiglipVisionModel,
    SwinConfig,
    SwinForImageClassification,
    SwinModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from stages.encoders.cached_trunk import Tuned
from stages.encoders.image import load_image_encoder
from stages.errors import InputError

SIDE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
SIZES = {"image_size": 16, "patch_size": 4}
SWIN = SIZES | {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2, "num_labels": 12}
TEXT = SIDE | {"vocab_size": 50}

# model → its output that is the vector, with image_feature=head
MODELS = {
    "vit": (lambda: ViTModel(ViTConfig(**SIDE, **SIZES)), "own"),
    "vit_without_pooler": (lambda: ViTModel(ViTConfig(**SIDE, **SIZES), add_pooling_layer=False), "cls"),
    "vit_classifier": (lambda: ViTForImageClassification(ViTConfig(**SIDE, **SIZES, num_labels=12)), "classifier"),
    "swin": (lambda: SwinModel(SwinConfig(**SWIN)), "mean"),
    "swin_classifier": (lambda: SwinForImageClassification(SwinConfig(**SWIN)), "classifier"),
    "dinov2": (lambda: Dinov2Model(Dinov2Config(**SIDE, **SIZES)), "cls"),
    "siglip_vision": (lambda: SiglipVisionModel(SiglipVisionConfig(**SIDE, **SIZES)), "own"),
    "clip": (
        lambda: CLIPModel(CLIPConfig(text_config=TEXT, vision_config=SIDE | SIZES, projection_dim=16)), "own"
    ),
    "convnext": (lambda: ConvNextModel(ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)), "own"),
    "resnet_classifier": (
        lambda: ResNetForImageClassification(
            ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=12)
        ),
        "classifier",
    ),
}  # fmt: skip


def saved(folder, kind):
    """A small model of that kind with an image processor, as save_pretrained writes them."""
    torch.manual_seed(0)
    MODELS[kind][0]().save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return str(folder)


def encode(encoder, pixels):
    encoder.model.eval()
    with torch.no_grad():
        return encoder.pool(encoder.states({"pixels": pixels}), {"pixels": pixels})


def pictures(count):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", MODELS)
def test_the_vector_is_the_output_that_the_model_is_made_for(tmp_path, kind, capsys):
    encoder = load_image_encoder(saved(tmp_path, kind), "head")
    assert encoder.output == MODELS[kind][1]
    assert f"vectors by {encoder.output}" in capsys.readouterr().out
    vectors = encode(encoder, pictures(3))
    with torch.no_grad():
        if kind == "clip":
            expected = encoder.model.get_image_features(pictures(3)).pooler_output
        else:
            output = encoder.model(pictures(3))
            expected = output.logits if encoder.output == "classifier" else output.pooler_output
            expected = output.last_hidden_state[:, 0] if expected is None else expected.flatten(1)
    torch.testing.assert_close(vectors, expected)
    assert torch.pdist(vectors).min() > 1e-5


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_model_is_fine_tuned_to_what_embedding_computes_and_saved(tmp_path, kind):
    encoder = load_image_encoder(saved(tmp_path / "source", kind), "head")
    part = Tuned(encoder, {"pixels": pictures(4)}, "last_block", fresh=False).eval()
    items = torch.tensor([3, 1, 4])
    whole = part(items)
    part.cache_trunk(3)
    torch.testing.assert_close(part(items), whole, atol=1e-5, rtol=1e-4)
    part(items).square().sum().backward()
    with torch.no_grad():
        for weight in part.parameters():
            if weight.grad is not None:
                weight.sub_(0.1 * weight.grad)
    tuned = part(items).detach()
    assert not torch.equal(tuned, whole)
    encoder.save(tmp_path / "saved")
    again = load_image_encoder(str(tmp_path / "saved"), "head")
    torch.testing.assert_close(encode(again, pictures(4)[items - 1]), tuned, atol=1e-5, rtol=1e-4)


def test_pooled_takes_no_class_scores(tmp_path):
    encoder = load_image_encoder(saved(tmp_path, "swin_classifier"), "pooled")
    assert encode(encoder, pictures(2)).shape == (2, 16)


def test_a_cover_is_prepared_by_the_model_s_own_processor(tmp_path):
    encoder = load_image_encoder(saved(tmp_path, "vit"), "head")
    pixels = encoder.transform(Image.new("RGB", (50, 30), (255, 0, 0)))
    assert pixels.shape == (3, 16, 16)
    assert (float(pixels[0].mean()), float(pixels[1].mean())) == (1.0, -1.0)


def test_a_folder_without_an_image_processor_is_refused(tmp_path):
    saved(tmp_path, "vit")
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="image_encoder=.* cannot be loaded .* image processor") as caught:
        load_image_encoder(str(tmp_path), "head")
    assert "\n" not in str(caught.value)


def test_an_image_processor_of_another_size_is_one_line(tmp_path):
    saved(tmp_path, "vit")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"image_encoder=.* cannot be loaded .*32\*32.*image processor"):
        load_image_encoder(str(tmp_path), "head")


def test_an_unknown_type_of_model_is_one_line(tmp_path):
    saved(tmp_path, "vit")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "nonesuch"}))
    with pytest.raises(InputError, match="cannot be loaded .*nonesuch") as caught:
        load_image_encoder(str(tmp_path), "head")
    assert "\n" not in str(caught.value)
