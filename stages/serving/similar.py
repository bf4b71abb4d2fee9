"""Items similar to an item, by its ID embedding, by its content, or by one modality of it."""

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from stages.errors import InputError
from stages.models.content import fuse_modalities
from stages.models.sicsrec import Sicsrec
from stages.serving.trained import Trained

BY = ("id", "text", "image", "both")


@torch.inference_mode()
def unit_vectors(model: Sicsrec, by: str) -> Tensor:
    """Unit vectors of all items (N, D); by `id` of those that training knew.

    by: one of BY; both: text and image, fused (eq. 10).
    Raises InputError when the model was trained without that modality.
    """
    modalities = ["id"] * model.config.use_id + list(model.config.widths)
    if by not in (*modalities, *["both"] * (len(model.config.widths) == 2)):
        raise InputError(f"--by {by}: the model was trained with modalities={modalities}: choose of these")
    if by == "id":
        return F.normalize(model.item_embedding.weight[1:], dim=-1)
    rows = next(iter(model.content.tables.values())).get_parameter("weight").shape[0]
    adapted = model.content(torch.arange(1, rows, device=model.projection.weight.device))
    return fuse_modalities(adapted) if by == "both" else F.normalize(adapted[by], dim=-1)


def usual_by(model: Sicsrec) -> str:
    """What items are compared by unless it is said: all content that the model reads, or id if it reads none."""
    content = list(model.config.widths)
    if len(content) == 2:
        return "both"
    return content[0] if content else "id"


def similar_items(trained: Trained, number: int, *, by: str | None, top: int) -> pl.DataFrame:
    """The items with the largest cosine to item `number`, without itself: rank, item (raw id), score.

    by: one of BY; None: see `usual_by`. Raises InputError when `by` is id and the item is new.
    """
    vectors = unit_vectors(trained.model, by or usual_by(trained.model))
    if number > len(vectors):
        raise InputError(f"--by id: {trained.items['raw_id'][number - 1]} is new, it has no ID vector: choose another")
    scores = vectors @ vectors[number - 1]
    scores[number - 1] = float("-inf")
    best = scores.topk(min(top, len(scores) - 1))
    return pl.DataFrame(
        {
            "rank": range(1, len(best.values) + 1),
            "item": trained.items["raw_id"].gather(best.indices.cpu().numpy()),
            "score": best.values.cpu().numpy(),
        }
    )
