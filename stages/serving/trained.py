"""The trained SICSRec, ready to serve, and the items that it knows."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from stages.errors import InputError
from stages.files import read_parquet
from stages.models.serving import folded_sicsrec
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.parallel.device import choose_device
from stages.provenance import check_inputs
from stages.training.checkpoints import load_model

ITEMS = Path("artifacts/split/items.parquet")
MODEL = Path("artifacts/sicsrec.safetensors")
EMBEDDINGS = Path("artifacts/embeddings.parquet")
SUMMARY = Path("artifacts/curves/posttrain/summary.json")


@dataclass(frozen=True)
class Trained:
    """items: the rows of items.parquet, row i − 1 is item i. matrix: the items' vectors (N, D), on `device`.

    New items follow the `model.config.items` that training knew.
    """

    model: Sicsrec
    matrix: Tensor
    items: pl.DataFrame

    @property
    def files(self) -> tuple[Path, ...]:
        """What decides its recommendations."""
        return (MODEL,)

    @property
    def device(self) -> torch.device:
        return self.matrix.device

    @property
    def known_items(self) -> int:
        """How many of the items training knew."""
        return self.model.config.items

    @property
    def max_length(self) -> int:
        """The latest items of a history that are read."""
        return self.model.config.max_length


def load_trained(device: str) -> Trained:
    """The model of the stage `posttrain`, folded. device: as in params.yaml.

    Raises InputError when it is missing, or was trained on other items than those of the split.
    """
    check_inputs(ITEMS, MODEL)
    model = folded_sicsrec(load_model(MODEL, Sicsrec, SicsrecConfig)).to(choose_device(device))
    with torch.inference_mode():
        return Trained(model, model.item_matrix().contiguous(), read_parquet(ITEMS))


def find_items(items: pl.DataFrame, words: list[str], title: str) -> pl.DataFrame:
    """The items whose title contains all the words, ignoring case. title: a column of items. → raw_id, title."""
    lowered = pl.col(title).str.to_lowercase()
    has_all = pl.all_horizontal(lowered.str.contains(word.lower(), literal=True) for word in words)
    return items.filter(has_all).select("raw_id", title=title)


def item_numbers(items: pl.DataFrame, raw_ids: list[str], option: str) -> list[int]:
    """The item numbers of raw ids, in the same order. option: of the command line, for the message.

    Raises InputError that names the unknown ids.
    """
    number = dict(items.select("raw_id", "item").iter_rows())
    if unknown := [raw_id for raw_id in raw_ids if raw_id not in number]:
        raise InputError(f"{option}: {ITEMS} has no {', '.join(unknown)}: find ids with --titles WORD")
    return [number[raw_id] for raw_id in raw_ids]


def popular_items(items: pl.DataFrame) -> list[int]:
    """All item numbers, those with most training interactions first."""
    return items.sort("count", "item", descending=[True, False])["item"].to_list()
