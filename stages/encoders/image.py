"""The image encoder: a timm model by name or folder, or a small vision transformer from scratch; or see vision.py."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf
from torch import Tensor, nn

from stages.encoders.content_encoder import Catalogue, Inputs, ItemInputs
from stages.encoders.decoding import decode_covers
from stages.encoders.loading import NOT_LOADED, cannot_be_loaded
from stages.encoders.vision import MEND, VisionEncoder, load_vision_encoder
from stages.files import user_path
from stages.params import EncodersParams

TINY = "tiny"  # marks the built-in encoder in timm's config
TINY_ARCHITECTURE = "vit_tiny_patch16_224"
TINY_SIZES = {
    "img_size": 64,
    "patch_size": 16,
    "embed_dim": 96,
    "depth": 2,
    "num_heads": 3,
    "num_classes": 128,
    "global_pool": "avg",
    "class_token": False,
}


@dataclass
class ImageEncoder:
    """A timm model, and how a cover becomes one vector."""

    model: Any  # nn.Module with timm's forward_features and forward_head, which have no type of their own
    feature: str  # head or pooled
    head: nn.Module = field(default_factory=nn.Identity)  # the classifier is part of the model

    def read(self, catalogue: Catalogue) -> ItemInputs:
        """Pixels of all covers. Raises InputError when no item has a readable one."""
        transform = create_transform(**resolve_model_data_config(self.model), is_training=False)
        return decode_covers(catalogue, transform)

    def lengths(self, inputs: Inputs) -> Float[Tensor, " n"]:
        """Ones: all covers have the same size."""
        return torch.ones(len(inputs["pixels"]))

    def trimmed(self, inputs: Inputs) -> Inputs:
        """The inputs as they are: covers have no padding."""
        return inputs

    def states(self, inputs: Inputs) -> Float[Tensor, "n ..."]:
        """Feature map or tokens before pooling."""
        return self.model.forward_features(inputs["pixels"])

    def pool(self, states: Float[Tensor, "n ..."], inputs: Inputs) -> Float[Tensor, "n D"]:
        """The classifier's output, or the pooled features."""
        return self.model.forward_head(states, pre_logits=self.feature == "pooled")

    def run_last_block(self, block: nn.Module, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """The last block's output for its arguments."""
        return block(*args, **kwargs)

    def save(self, folder: Path) -> None:
        """Write the model in timm's layout, which `local-dir:FOLDER` loads."""
        arguments = TINY_SIZES if self.model.default_cfg.get("tag") == TINY else None
        save_for_hf(self.model, str(folder), model_args=arguments, safe_serialization=True)


def tiny_image_encoder(feature: str) -> ImageEncoder:
    """A two-block vision transformer for 64 × 64 covers; weights from torch's current seed."""
    arguments: dict[str, Any] = {"pretrained_cfg_overlay": {"input_size": (3, 64, 64), "tag": TINY}, **TINY_SIZES}
    return ImageEncoder(timm.create_model(TINY_ARCHITECTURE, **arguments), feature)


def load_image_encoder(name: str, feature: str) -> ImageEncoder | VisionEncoder:
    """A model by name or folder, of timm or of transformers. Raises InputError when it cannot be loaded."""
    if _is_of_transformers(name):
        return load_vision_encoder(name, feature)
    place = f"local-dir:{user_path(name)}" if user_path(name).is_dir() else name
    place = f"hf-hub:{name}" if name.startswith("timm/") else place
    try:
        return ImageEncoder(timm.create_model(place, pretrained=True), feature)
    except NOT_LOADED as error:
        raise cannot_be_loaded(f"image_encoder={name}", error, MEND) from error


def _is_of_transformers(name: str) -> bool:
    """timm names the architecture in config.json, transformers the type of model; of hub names timm's have a prefix."""
    config = user_path(name) / "config.json"
    if user_path(name).is_dir():
        try:
            content = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else None
        except ValueError:  # not JSON: timm says so
            return False
        return isinstance(content, dict) and "model_type" in content
    return "/" in name and ":" not in name and not name.startswith((".", "/", "~", "timm/"))


def tiny(catalogue: Catalogue, settings: EncodersParams) -> ImageEncoder:
    """`image_encoder=tiny`."""
    return tiny_image_encoder(settings.image_feature)


def load(name: str, settings: EncodersParams) -> ImageEncoder | VisionEncoder:
    """Any other `image_encoder`."""
    return load_image_encoder(name, settings.image_feature)
