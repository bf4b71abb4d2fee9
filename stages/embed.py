"""One vector per item and content modality, from the fine-tuned encoders (paper section 3.4.1).

The other systems of Table 4 read the same vectors, or those from before fine-tuning (`baseline.embeddings`).
"""

from pathlib import Path
from typing import Any

import polars as pl
import torch

from stages.encoders.content_encoder import Catalogue, ContentEncoder
from stages.encoders.embedding import embed_items, refuse_useless_vectors
from stages.encoders.modalities import MODALITIES, starting_encoder
from stages.errors import run_stage
from stages.files import read_parquet, write_json, write_parquet
from stages.parallel.device import choose_device
from stages.params import Params, load_params
from stages.provenance import Ids, check_inputs

ITEMS = Path("artifacts/split/items.parquet")
ENCODERS = Path("artifacts/encoders")
EMBEDDINGS = Path("artifacts/embeddings.parquet")
FOR_BASELINES = Path("artifacts/embeddings_baselines.parquet")


def read_catalogue(params: Params, items: pl.DataFrame) -> Catalogue:
    """Where the items' titles and covers are."""
    covers = Path(f"artifacts/raw/{params.dataset}_cover.zip")
    return Catalogue(items, f"title_{params.language}", covers, params.encoders.workers)


def tuned_encoders(params: Params) -> dict[str, ContentEncoder]:
    """The encoders that the sft stage saved, by modality."""
    return {
        modality: entry.load(str((ENCODERS / modality).resolve()), params.encoders)
        for modality, entry in MODALITIES.items()
        if modality in params.modalities
    }


def frozen_encoders(params: Params, catalogue: Catalogue) -> dict[str, ContentEncoder]:
    """The encoders with which the sft stage began, by modality."""
    names = {"text": params.text_encoder, "image": params.image_encoder}
    torch.manual_seed(params.seed)
    return {
        modality: starting_encoder(modality, names[modality], catalogue, params.encoders)
        for modality in MODALITIES
        if modality in params.modalities
    }


def embed(
    params: Params, catalogue: Catalogue, encoders: dict[str, ContentEncoder]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Vectors of all items by modality, and the facts for metrics/embed.json."""
    device = choose_device(params.device, params.precision)
    vectors: dict[str, torch.Tensor] = {}
    facts: dict[str, Any] = {"items": len(catalogue.items)}
    for modality, encoder in encoders.items():
        inputs = encoder.read(catalogue)
        vectors[modality] = embed_items(encoder, inputs, params.encoders.batch_size, device, modality)
        refuse_useless_vectors(modality, vectors[modality], inputs.usable)
        facts |= {f"{modality}_dim": vectors[modality].shape[1], **inputs.facts}
    return vectors, facts


def write_vectors(path: Path, items: pl.DataFrame, vectors: dict[str, torch.Tensor], inputs: Ids) -> None:
    """A column of float32 arrays per modality, a row per item."""
    columns = {
        name: pl.Series(table.float().numpy(), dtype=pl.Array(pl.Float32, table.shape[1]))
        for name, table in vectors.items()
    }
    write_parquet(path, pl.DataFrame({"item": items["item"], **columns}), inputs)


def main() -> str:
    params = load_params()
    items = read_parquet(ITEMS)
    inputs = check_inputs(ITEMS, ENCODERS)
    catalogue = read_catalogue(params, items)
    vectors, facts = embed(params, catalogue, tuned_encoders(params))
    write_vectors(EMBEDDINGS, items, vectors, inputs)
    if params.baseline.embeddings == "frozen":
        vectors, _ = embed(params, catalogue, frozen_encoders(params, catalogue))
    write_vectors(FOR_BASELINES, items, vectors, inputs)
    write_json(Path("metrics/embed.json"), facts)
    widths = ", ".join(f"{table.shape[1]:,} numbers of {name}" for name, table in vectors.items())
    return f"{len(items):,} items: {widths or 'no content modality'}"


if __name__ == "__main__":
    run_stage(main)
