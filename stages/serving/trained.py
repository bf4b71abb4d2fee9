"""The trained SICSRec, ready to serve, and the items that it knows."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from safetensors import safe_open
from torch import Tensor

from stages.errors import InputError
from stages.files import read_parquet
from stages.models.serving import folded_sicsrec
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.parallel.device import Precision, choose_device
from stages.provenance import check_inputs
from stages.training.checkpoints import load_model

RAW = Path("artifacts/raw")
ITEMS = Path("artifacts/split/items.parquet")
EMBEDDINGS = Path("artifacts/embeddings.parquet")


@dataclass(frozen=True)
class ModelFiles:
    """Where a trained SICSRec is: its weights, the summary of its training, and the stage that writes both."""

    weights: Path
    summary: Path
    stage: str


SICSREC, DISTILLED = (
    ModelFiles(Path(f"artifacts/{name}.safetensors"), Path(f"artifacts/curves/{stage}/summary.json"), stage)
    for name, stage in (("sicsrec", "posttrain"), ("distilled", "distill"))
)
MODELS = {"sicsrec": SICSREC, "distilled": DISTILLED}  # by the name of the row in Table 4


@dataclass(frozen=True)
class Trained:
    """items: the rows of items.parquet, row i − 1 is item i. matrix: the items' vectors (N, D), on `device`.

    New items follow the `model.config.items` that training knew.
    """

    model: Sicsrec
    matrix: Tensor
    items: pl.DataFrame
    source: ModelFiles = SICSREC

    @property
    def files(self) -> tuple[Path, ...]:
        """What decides its recommendations."""
        return (self.source.weights,)

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


def refuse_other_dataset(dataset: str) -> None:
    """Raise InputError when the artifacts are of another dataset than this one, which params.yaml names."""
    if RAW.is_dir() and not (RAW / f"{dataset}_item.csv").is_file():
        raise InputError(
            f"{RAW} is of another dataset than dataset={dataset} in params.yaml: run `dvc repro`, or set it back"
        )


def load_trained(device: str, source: ModelFiles = SICSREC, precision: Precision = "auto") -> Trained:
    """A trained SICSRec, folded. device, precision: as in params.yaml; the precision is that of encoders of new items.

    Raises InputError when it is missing, or was trained on other items than those of the split.
    """
    if source is DISTILLED:
        _refuse_without_tensors(source.weights)
    check_inputs(ITEMS, source.weights)
    model = folded_sicsrec(load_model(source.weights, Sicsrec, SicsrecConfig)).to(choose_device(device, precision))
    with torch.inference_mode():
        return Trained(model, model.item_matrix().contiguous(), read_parquet(ITEMS), source)


def _refuse_without_tensors(path: Path) -> None:
    """Raise InputError for a missing file, and for the empty one that `distill` writes when distill=0."""
    if path.is_file():
        with safe_open(path, framework="pt") as file:
            if file.metadata():
                return
    raise InputError(f"{path} holds no model: run `dvc exp run -S 'fuse=[sicsrec,id_encoder,itemknn]' -S distill=4`")


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
