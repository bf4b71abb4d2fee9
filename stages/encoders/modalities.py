"""Registry of the content modalities. To add one: two functions that return such an encoder, and a line here.

The functions import the encoder's module: timm and transformers take several seconds each, and not every run uses them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from stages.encoders.content_encoder import Catalogue, ContentEncoder
from stages.params import EncodersParams, Params

TINY = "tiny"  # as text_encoder or image_encoder: the built-in encoder, whose weights start from the seed


@dataclass(frozen=True)
class Modality:
    """How to get one modality's encoder."""

    tiny: Callable[[Catalogue, EncodersParams], ContentEncoder]
    load: Callable[[str, EncodersParams], ContentEncoder]  # by name, or from a folder such as its `save` writes


def _tiny_text(catalogue: Catalogue, settings: EncodersParams) -> ContentEncoder:
    from stages.encoders import text

    return text.tiny(catalogue, settings)


def _load_text(name: str, settings: EncodersParams) -> ContentEncoder:
    from stages.encoders import text_loading

    return text_loading.load(name, settings)


def _tiny_image(catalogue: Catalogue, settings: EncodersParams) -> ContentEncoder:
    from stages.encoders import image

    return image.tiny(catalogue, settings)


def _load_image(name: str, settings: EncodersParams) -> ContentEncoder:
    from stages.encoders import image

    return image.load(name, settings)


MODALITIES = {"text": Modality(_tiny_text, _load_text), "image": Modality(_tiny_image, _load_image)}


def encoding_settings(params: Params) -> dict[str, str | int]:
    """The params that decide the vectors beside the encoders' weights, by dotted key."""
    settings = {name: getattr(params.encoders, name) for name in ("pooling", "image_feature", "max_tokens")}
    return {"language": params.language} | {f"encoders.{name}": value for name, value in settings.items()}


def starting_encoder(modality: str, name: str, catalogue: Catalogue, settings: EncodersParams) -> ContentEncoder:
    """The encoder before fine-tuning. name: `tiny`, or what the modality's `load` takes."""
    entry = MODALITIES[modality]
    return entry.tiny(catalogue, settings) if name == TINY else entry.load(name, settings)
