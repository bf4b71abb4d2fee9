"""Registry of the content modalities. To add one: a module with such an encoder and two functions, and a line here."""

from collections.abc import Callable
from dataclasses import dataclass

from stages.encoders import image, text, text_loading
from stages.encoders.content_encoder import Catalogue, ContentEncoder
from stages.params import EncodersParams

TINY = "tiny"  # as text_encoder or image_encoder: the built-in encoder, whose weights start from the seed


@dataclass(frozen=True)
class Modality:
    """How to get one modality's encoder."""

    tiny: Callable[[Catalogue, EncodersParams], ContentEncoder]
    load: Callable[[str, EncodersParams], ContentEncoder]  # by name, or from a folder such as its `save` writes


MODALITIES = {
    "text": Modality(text.tiny, text_loading.load),
    "image": Modality(image.tiny, image.load),
}


def starting_encoder(modality: str, name: str, catalogue: Catalogue, settings: EncodersParams) -> ContentEncoder:
    """The encoder before fine-tuning. name: `tiny`, or what the modality's `load` takes."""
    entry = MODALITIES[modality]
    return entry.tiny(catalogue, settings) if name == TINY else entry.load(name, settings)
