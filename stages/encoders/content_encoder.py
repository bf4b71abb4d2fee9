"""The seam of this folder: what fine-tuning, embedding and the cached trunk call of one modality's encoder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import polars as pl
from jaxtyping import Bool, Float, Num
from torch import Tensor, nn

Inputs = dict[str, Tensor]  # {argument of the model: one row per item}


@dataclass(frozen=True)
class Catalogue:
    """Where encoders find the content of the items."""

    items: pl.DataFrame  # raw_id, title_zh, title_en, cover; row i − 1 is item i
    title: str  # the column with the titles
    covers: Path  # zip archive
    workers: int  # processes that decode covers


@dataclass(frozen=True)
class ItemInputs:
    """One modality's inputs of all items: what the encoder reads, and which items have any."""

    values: Inputs
    usable: Bool[Tensor, " N"]
    facts: dict[str, int] = field(default_factory=dict)  # for metrics/embed.json


@runtime_checkable
class ContentEncoder(Protocol):
    """A pretrained or small model that makes one vector of an item's content."""

    model: nn.Module
    head: nn.Module  # what `pool` runs beside the model; no weights: nn.Identity()

    def read(self, catalogue: Catalogue) -> ItemInputs:
        """The inputs of all items. Raises InputError when no item has content of this modality."""

    def lengths(self, inputs: Inputs) -> Num[Tensor, " n"]:
        """Length of each input; items of similar length are put into one batch."""

    def trimmed(self, inputs: Inputs) -> Inputs:
        """The inputs without padding that no row of the batch needs."""

    def states(self, inputs: Inputs) -> Float[Tensor, "n ..."]:
        """Output of the model before pooling."""

    def pool(self, states: Float[Tensor, "n ..."], inputs: Inputs) -> Float[Tensor, "n D"]:
        """One vector per item."""

    def run_last_block(self, block: nn.Module, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """The last block's output for the arguments that the model calls it with; at least what `pool` reads of it."""

    def save(self, folder: Path) -> None:
        """Write model and settings so that the modality's `load` reads them."""
