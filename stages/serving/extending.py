"""The trained model with new items beside those that it knows, scored as items that training never saw."""

import sys
from dataclasses import replace

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.encoders.modalities import encoding_settings
from stages.errors import InputError
from stages.files import read_json, read_vectors
from stages.models.content import fuse_modalities
from stages.models.nearest import nearest_items, unit_content
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.params import Params
from stages.provenance import check_inputs
from stages.serving.content_vectors import ENCODERS, tuned_vectors
from stages.serving.new_items import NewItems
from stages.serving.trained import EMBEDDINGS, ITEMS, ModelFiles, Trained
from stages.training.checkpoints import load_model


def with_new_items(trained: Trained, new: NewItems, params: Params) -> Trained:
    """`trained` with the new items after the known ones in `items`, `matrix` and the model's content tables.

    A new item's vector is `unseen_scale` times the mean of those of the seen items that are nearest by content, as in
    models/content_scoring.py. Raises InputError when the model does not rank by content.
    """
    scale = unseen_scale(trained.model.config, trained.source)
    check_inputs(ITEMS, ENCODERS, EMBEDDINGS, trained.source.weights)
    refuse_other_settings(params)
    modalities = list(trained.model.config.widths)
    known = {name: torch.from_numpy(matrix) for name, matrix in read_vectors(EMBEDDINGS, modalities).items()}
    vectors = {}
    for name, matrix in known.items():
        vectors[name] = torch.cat([matrix, new_vectors(name, matrix, new, params, trained.device)])
    adapted = adapted_vectors(trained, known, vectors)
    seen = torch.from_numpy((trained.items["count"] > 0).to_numpy())
    with torch.inference_mode():
        fused = fuse_modalities({name: table[1:] for name, table in adapted.items()})
        centre = F.pad(seen, (0, new.items.height))
        known_items = F.pad(torch.ones_like(seen), (0, new.items.height))
        units = unit_content({"model": fused, **vectors}, centre=centre, embedded=known_items)
        every = torch.arange(1, len(units) + 1)
        nearest = nearest_items(units, of=every[len(seen) :], among=every[centre])
        added = scale * nearest.mean(trained.matrix.cpu())
    model = trained.model
    for name, table in adapted.items():
        model.content.tables[name] = nn.Embedding.from_pretrained(table.to(trained.device))
    matrix = torch.cat([trained.matrix, added.to(trained.device)])
    return replace(trained, model=model, matrix=matrix, items=pl.concat([trained.items, new.items]))


def new_vectors(modality: str, known: Tensor, new: NewItems, params: Params, device: torch.device) -> Tensor:
    """Vectors of all new items by the tuned encoder (M, width); without content: the mean of the `known` ones."""
    found, has = tuned_vectors(modality, new, f"title_{params.language}", params.encoders, device)
    vectors = known.mean(dim=0).repeat(len(has), 1)
    if has.any():
        vectors[torch.from_numpy(has)] = found
    return vectors


@torch.inference_mode()
def adapted_vectors(trained: Trained, known: dict[str, Tensor], vectors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adapted vectors of padding, known and new items, (1 + N + M, D): of known items those of the trained tables.

    New items start where `Sicsrec.load_content_vectors` starts items: that of the content-only model, which is trained
    first, if the content side is frozen. known, vectors: of the encoders, without and with the new items.
    """
    content = load_model(trained.source.weights, Sicsrec, SicsrecConfig).content  # not folded: has the adapters
    tables = {}
    for name, matrix in vectors.items():
        start = matrix[len(known[name]) :]
        if not trained.model.config.use_id or trained.model.config.needs_content_first:
            start = start - known[name].mean(dim=0)
        folded = trained.model.content.tables[name].get_parameter("weight").cpu()
        tables[name] = torch.cat([folded, content.adapters[name](start)])
    return tables


def refuse_other_settings(params: Params) -> None:
    """Raise InputError when the encoders would read or encode the new items otherwise than they did the known ones."""
    trained = read_json(ENCODERS / "modalities.json")["settings"]
    for key, value in encoding_settings(params).items():
        if trained[key] != value:
            raise InputError(
                f"--new-items: {key}={value} in params.yaml, but the encoders were trained with {trained[key]}: set it "
                "back or run `dvc repro`"
            )


def unseen_scale(config: SicsrecConfig, source: ModelFiles) -> float:
    """What the vectors of items that training never saw were scaled by; 1 when training saw all items.

    Raises InputError when the model ranks by ID vectors alone, or by content that is not the items' own.
    """
    if config.content_weight is None:
        raise InputError(
            "--new-items: the model ranks by ID vectors alone, which a new item has none of: set content_weight=auto "
            "(or above 0) and run `dvc repro`"
        )
    summary = read_json(source.summary)
    if content := summary.get("content"):
        raise InputError(
            f"--new-items: the model was trained with posttrain.content={content}, which hides what items are: set it "
            "to own, run `dvc repro`"
        )
    found = summary.get("content_weight")
    if found is None or found["chosen"] != config.content_weight:
        raise InputError(f"{source.summary} and {source.weights} are of different runs: run `dvc repro {source.stage}`")
    if not found["unseen_items"]:
        print("--new-items: training saw every item, so no scale was chosen: new items are not scaled", file=sys.stderr)
        return 1.0
    if not found["unseen_scale"]:
        print(f"--new-items: {source.summary} has unseen_scale=0: on validation unseen items cost too much, new items "
              "score 0", file=sys.stderr)  # fmt: skip
    return float(found["unseen_scale"])
