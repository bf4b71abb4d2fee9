"""Vectors of new items by the tuned encoders.

Each title and cover is encoded once and found in `.cache/` by its content. Without anything to encode the encoders are
not loaded, which saves seconds.
"""

import hashlib
import sys
import zipfile
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from stages.encoders.content_encoder import Catalogue
from stages.encoders.embedding import embed_items
from stages.encoders.modalities import MODALITIES
from stages.errors import InputError
from stages.files import read_cached, write_parquet
from stages.params import EncodersParams
from stages.provenance import recorded
from stages.serving.new_items import NewItems, named
from stages.training.checkpoints import state_path

ENCODERS = Path("artifacts/encoders")


def tuned_vectors(
    modality: str, new: NewItems, title: str, settings: EncodersParams, device: torch.device
) -> tuple[Tensor, np.ndarray]:
    """Vectors of the new items that have one of a modality (n, width), and which those are (M,) bool.

    title: the column with the titles. An empty title is encoded like any other, as the stage `embed` does; an item
    without a readable cover has no vector. Raises InputError when no new item has a title, or when there are images
    but no new item has a readable one.
    """
    if modality == "text":
        keys: list[str | None] = [_hash(text.encode()) for text in new.items[title]]
        lacking = new.items.filter(pl.col(title).str.strip_chars() == "")["raw_id"].to_list()
    else:
        keys = _cover_keys(new)
        lacking = new.items.filter(pl.Series(keys, dtype=pl.String).is_null())["raw_id"].to_list()
    _report_lacking(modality, new, lacking, title if modality == "text" else "readable cover")
    if not any(keys):
        return torch.empty(0, 0), np.zeros(len(keys), dtype=bool)
    path = state_path(f"new_{modality}", [recorded(ENCODERS)[0], settings.model_dump()], []).with_suffix(".parquet")
    vectors = _through_cache(path, modality, new, keys, title, settings, device)
    return vectors, np.array([key is not None for key in keys])


def _report_lacking(modality: str, new: NewItems, lacking: list[str], content: str) -> None:
    """Say on stderr which items have no content; InputError when none has any, unless there are no images at all."""
    if not lacking:
        return
    where = f"--new-items {new.place}"
    if len(lacking) == new.items.height and (modality == "text" or new.has_images):
        mend = "name the column of titles in columns.title" if modality == "text" else "name images by item id"
        raise InputError(f"{where}: no item has a {content}, and the model reads {modality}: {mend}")
    instead = "encoded as empty" if modality == "text" else "they get the mean vector of the known items"
    print(f"{where}: {len(lacking):,} items have no {content} ({named(lacking)}): {instead}", file=sys.stderr)


def _through_cache(
    path: Path,
    modality: str,
    new: NewItems,
    keys: list[str | None],
    title: str,
    settings: EncodersParams,
    device: torch.device,
) -> Tensor:
    """The vectors of the items whose key is not None; those that the file `path` lacks are computed and added."""
    wanted = new.items.with_columns(key=pl.Series(keys, dtype=pl.String)).drop_nulls("key")
    cached = read_cached(path)
    missing = wanted.unique("key", keep="first", maintain_order=True)
    if cached is not None:
        missing = missing.join(cached, on="key", how="anti", maintain_order="left")
    if missing.height:
        catalogue = Catalogue(missing, title, new.covers.path, settings.workers)
        with redirect_stdout(sys.stderr):
            encoder = MODALITIES[modality].load(str((ENCODERS / modality).resolve()), settings)
            vectors = embed_items(encoder, encoder.read(catalogue), settings.batch_size, device, modality)
        matrix = vectors.float().cpu().numpy()
        column = pl.Series("vector", matrix, dtype=pl.Array(pl.Float32, matrix.shape[1]))
        added = missing.select("key", column)
        cached = added if cached is None else pl.concat([cached, added])
        write_parquet(path, cached)
    assert cached is not None  # some key is wanted: what was not in the file has been added
    found = wanted.join(cached, on="key", how="left", maintain_order="left")
    return torch.from_numpy(found["vector"].to_numpy().copy())


def _cover_keys(new: NewItems) -> list[str | None]:
    if not new.covers.path.is_file():
        return [None] * new.items.height
    with zipfile.ZipFile(new.covers.path) as archive:
        return [
            _hash(archive.read(new.covers.names[raw_id])) if new.covers.get(raw_id) is not None else None
            for raw_id in new.items["raw_id"]
        ]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
