"""The image encoder: a timm model by name or folder, or a small vision transformer from scratch."""

import zipfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Bool, Float
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from stages.encoders.content_encoder import Catalogue, Inputs, ItemInputs
from stages.errors import InputError
from stages.files import user_path
from stages.params import EncodersParams

TINY = "tiny"  # marks the built-in encoder in timm's config
TINY_ARCHITECTURE = "vit_tiny_patch16_224"
TINY_SIZES = {"img_size": 64, "patch_size": 8, "embed_dim": 96, "depth": 2, "num_heads": 3, "num_classes": 128}


@dataclass
class ImageEncoder:
    """A timm model, and how a cover becomes one vector."""

    model: Any  # nn.Module with timm's forward_features and forward_head, which have no type of their own
    feature: str  # head or pooled
    head: nn.Module = field(default_factory=nn.Identity)  # the classifier is part of the model

    def read(self, catalogue: Catalogue) -> ItemInputs:
        """Pixels of all covers. Raises InputError when no item has a readable one."""
        raw_ids, present = catalogue.items["raw_id"].to_list(), catalogue.items["cover"].to_list()
        covers = decode_covers(catalogue.covers, raw_ids, present, self, catalogue.workers)
        facts = {"missing_covers": covers.missing, "unreadable_covers": covers.unreadable}
        return ItemInputs({"pixels": covers.pixels}, covers.readable, facts)

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


def load_image_encoder(name: str, feature: str) -> ImageEncoder:
    """A timm model by name or folder. Raises InputError when it cannot be loaded."""
    place = f"local-dir:{user_path(name)}" if user_path(name).is_dir() else name
    try:
        return ImageEncoder(timm.create_model(place, pretrained=True), feature)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"image_encoder={name} cannot be loaded ({reason}): give a timm name or a folder with config.json and "
            "model.safetensors"
        ) from error


class CoverDataset(Dataset[tuple[Tensor, bool]]):
    """Covers of a zip archive, decoded and transformed as the model expects; an unreadable one is zeros and False."""

    def __init__(self, archive: Path, names: list[str], encoder: ImageEncoder) -> None:
        self.archive, self.names = archive, names
        settings = resolve_model_data_config(encoder.model)
        self.size = settings["input_size"]
        self.transform = create_transform(**settings, is_training=False)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, bool]:
        with zipfile.ZipFile(self.archive) as file:
            content = file.read(self.names[index])
        try:
            image = Image.open(BytesIO(content)).convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError):  # counted by the caller, which reports it
            return torch.zeros(self.size), False
        return self.transform(image), True


@dataclass(frozen=True)
class DecodedCovers:
    """Covers of all items; zeros where an item has no readable one."""

    pixels: Float[Tensor, "N 3 height width"]
    readable: Bool[Tensor, " N"]
    missing: int
    unreadable: int


def decode_covers(
    archive: Path, raw_ids: list[str], present: list[bool], encoder: ImageEncoder, workers: int
) -> DecodedCovers:
    """The covers of all items, decoded by worker processes.

    Raises InputError when the archive is missing or holds no readable cover.
    """
    if not archive.is_file():
        dataset = archive.name.removesuffix("_cover.zip")
        raise InputError(f"{dataset} has no covers ({archive} is missing): run with -S 'modalities=[id,text]'")
    where = [index for index, there in enumerate(present) if there]
    covers = CoverDataset(archive, [f"{raw_ids[index]}.jpg" for index in where], encoder)
    pixels = torch.zeros(len(raw_ids), *covers.size)
    readable = torch.zeros(len(raw_ids), dtype=torch.bool)
    begin = 0
    for block, good in DataLoader(covers, batch_size=64, num_workers=workers):
        index = torch.tensor(where[begin : begin + len(block)])
        pixels[index], readable[index] = block, good
        begin += len(block)
    if not readable.any():
        raise InputError(f"{archive} holds no readable cover of these items: run with -S 'modalities=[id,text]'")
    return DecodedCovers(pixels, readable, len(raw_ids) - len(where), len(where) - int(readable.sum()))


def tiny(catalogue: Catalogue, settings: EncodersParams) -> ImageEncoder:
    """`image_encoder=tiny`."""
    return tiny_image_encoder(settings.image_feature)


def load(name: str, settings: EncodersParams) -> ImageEncoder:
    """Any other `image_encoder`."""
    return load_image_encoder(name, settings.image_feature)
