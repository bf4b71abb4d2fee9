"""An image encoder of transformers (ViT, Swin, DINOv2, the image side of CLIP and SigLIP) with its image processor."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification

from stages.encoders.content_encoder import Catalogue, Inputs, ItemInputs
from stages.encoders.decoding import decode_covers
from stages.encoders.loading import NOT_LOADED, cannot_be_loaded, refuse_missing_weights
from stages.files import is_main_process, user_path

MEND = (
    "give a timm name, or a folder of timm or transformers with its weights and, of transformers, its image processor"
)


@dataclass
class VisionEncoder:
    """A transformers model, and which of its outputs is a cover's vector."""

    model: Any  # PreTrainedModel; its classes share no type for what they return
    processor: Any
    output: str  # classifier, own (the model's pooled vector), cls (first token) or mean (over tokens)
    head: nn.Module = field(default_factory=nn.Identity)  # the classifier is part of the model

    def read(self, catalogue: Catalogue) -> ItemInputs:
        """Pixels of all covers. Raises InputError when no item has a readable one."""
        return decode_covers(catalogue, self.transform)

    def transform(self, image: Image.Image) -> Float[Tensor, "channels height width"]:
        """A cover as the model reads it."""
        return self.processor(images=image, return_tensors="pt")["pixel_values"][0]

    def lengths(self, inputs: Inputs) -> Float[Tensor, " n"]:
        """Ones: all covers have the same size."""
        return torch.ones(len(inputs["pixels"]))

    def trimmed(self, inputs: Inputs) -> Inputs:
        """The inputs as they are: covers have no padding."""
        return inputs

    def states(self, inputs: Inputs) -> Float[Tensor, "n ..."]:
        """Class scores or pooled vectors (n, D), or hidden states (n, tokens, D)."""
        if hasattr(self.model, "get_image_features"):
            return self.model.get_image_features(pixel_values=inputs["pixels"]).pooler_output
        output = self.model(pixel_values=inputs["pixels"])
        return output.logits if self.output == "classifier" else _states(output, self.output)

    def pool(self, states: Float[Tensor, "n ..."], inputs: Inputs) -> Float[Tensor, "n D"]:
        """One vector per cover."""
        return _pooled(states, self.output)

    def run_last_block(self, block: nn.Module, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """The last block's output for its arguments."""
        return block(*args, **kwargs)

    def save(self, folder: Path) -> None:
        """Write model and image processor in Hugging Face's layout."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def load_vision_encoder(name: str, feature: str) -> VisionEncoder:
    """By hub name or folder, computed in float32. feature: head (class scores, if it has a classifier) or pooled.

    Raises InputError when it cannot be loaded or has no image processor.
    """
    place = str(user_path(name)) if user_path(name).is_dir() else name
    try:
        config = AutoConfig.from_pretrained(place)
        classifies = any(kind.endswith("ForImageClassification") for kind in config.architectures or [])
        classifies = classifies and feature == "head"
        kind: Any = AutoModelForImageClassification if classifies else AutoModel
        model, info = kind.from_pretrained(place, dtype=torch.float32, output_loading_info=True)
        processor = AutoImageProcessor.from_pretrained(place)
    except NOT_LOADED as error:
        raise cannot_be_loaded(f"image_encoder={name}", error, MEND) from error
    refuse_missing_weights(f"image_encoder={name}", info["missing_keys"], MEND)
    if any(key.startswith("pooler") for key in info["missing_keys"]):
        model.pooler = None  # untrained
    encoder = VisionEncoder(model.eval(), processor, "classifier" if classifies else "own")
    if not classifies and not hasattr(model, "get_image_features"):
        try:
            encoder.output = _output_of(encoder)
        except NOT_LOADED as error:  # the processor is another model's, or the model reads no images
            raise cannot_be_loaded(f"image_encoder={name}", error, MEND) from error
    if is_main_process():
        print(f"image_encoder={name}: vectors by {encoder.output}")
    return encoder


@torch.no_grad()
def _output_of(encoder: VisionEncoder) -> str:
    """Whether the model's pooled vector is its first token or the mean over tokens, which can be run from the cache.

    Without a pooled vector the first token of a model that has a token for the class, else the mean.
    """
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)  # in one colour all tokens are equal
    output = encoder.model(pixel_values=encoder.transform(Image.fromarray(noise))[None])
    own = getattr(output, "pooler_output", None)
    if own is None:
        return "cls" if any("cls_token" in name for name, _ in encoder.model.named_parameters()) else "mean"
    for pooling in ("cls", "mean"):
        states = _states(output, pooling)
        if states.ndim == 3 and torch.allclose(_pooled(states, pooling), own, atol=1e-5, rtol=1e-4):
            return pooling
    return "own"


def _states(output: Any, pooling: str) -> Tensor:
    return output.pooler_output.flatten(1) if pooling == "own" else output.last_hidden_state


def _pooled(states: Tensor, pooling: str) -> Tensor:
    if pooling == "cls":
        return states[:, 0]
    return states.flatten(2).mean(dim=2) if states.ndim == 4 else states.mean(dim=1) if pooling == "mean" else states
