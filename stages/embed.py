"""Every item's text and image vector by the tuned encoders (paper section 3.4.1).

The other systems of Table 4 read the same vectors, or those from before the tuning (`baseline.embeddings`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from stages.encoders import image, text
from stages.encoders.embedding import embed_covers, embed_titles
from stages.errors import run_stage
from stages.files import read_parquet, write_json, write_parquet
from stages.parallel.device import choose_device
from stages.params import Params, load_params

ENCODERS = Path("artifacts/encoders")
EMBEDDINGS = Path("artifacts/embeddings.parquet")
FOR_BASELINES = Path("artifacts/embeddings_baselines.parquet")


@dataclass
class Encoders:
    """One of each modality in use."""

    titles: text.TextEncoder | None = None
    covers: image.ImageEncoder | None = None


def tuned_encoders(params: Params) -> Encoders:
    """What the sft stage made."""
    e, encoders = params.encoders, Encoders()
    if "text" in params.modalities:
        encoders.titles = text.load_text_encoder(str((ENCODERS / "text").resolve()), e.pooling, e.max_tokens)
    if "image" in params.modalities:
        encoders.covers = image.load_image_encoder(str((ENCODERS / "image").resolve()), e.image_feature)
    return encoders


def frozen_encoders(params: Params, titles: list[str]) -> Encoders:
    """What the sft stage began with."""
    e, encoders = params.encoders, Encoders()
    torch.manual_seed(params.seed)
    if "text" in params.modalities:
        encoders.titles = text.starting_text_encoder(params.text_encoder, titles, e.pooling, e.max_tokens)
    if "image" in params.modalities:
        encoders.covers = image.starting_image_encoder(params.image_encoder, e.image_feature)
    return encoders


def embed(params: Params, items: pl.DataFrame, encoders: Encoders) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Vectors of each content modality in use, and what is to be said of them."""
    e, device = params.encoders, choose_device(params.device)
    vectors: dict[str, torch.Tensor] = {}
    facts: dict[str, Any] = {"items": len(items)}
    if encoders.titles:
        titles = items[f"title_{params.language}"].to_list()
        vectors["text"] = embed_titles(encoders.titles, titles, e.batch_size, device)
        facts |= {"text_dim": vectors["text"].shape[1], "empty_titles": titles.count("")}
    if encoders.covers:
        archive = Path(f"artifacts/raw/{params.dataset}_cover.zip")
        raw_ids, present = items["raw_id"].to_list(), items["cover"].to_list()
        covers = image.decode_covers(archive, raw_ids, present, encoders.covers, e.workers)
        vectors["image"] = embed_covers(encoders.covers, covers, e.batch_size, device)
        facts |= {
            "image_dim": vectors["image"].shape[1],
            "missing_covers": covers.missing,
            "unreadable_covers": covers.unreadable,
        }
    return vectors, facts


def write_vectors(path: Path, items: pl.DataFrame, vectors: dict[str, torch.Tensor]) -> None:
    """A column of float32 arrays a modality, a row an item."""
    columns = {
        name: pl.Series(table.float().numpy(), dtype=pl.Array(pl.Float32, table.shape[1]))
        for name, table in vectors.items()
    }
    write_parquet(path, pl.DataFrame({"item": items["item"], **columns}))


def main() -> None:
    params = load_params()
    items = read_parquet(Path("artifacts/split/items.parquet"))
    vectors, facts = embed(params, items, tuned_encoders(params))
    write_vectors(EMBEDDINGS, items, vectors)
    if params.baseline.embeddings == "frozen":
        vectors, _ = embed(params, items, frozen_encoders(params, items[f"title_{params.language}"].to_list()))
    write_vectors(FOR_BASELINES, items, vectors)
    write_json(Path("metrics/embed.json"), facts)


if __name__ == "__main__":
    run_stage(main)
