"""Vectors that mix ID and content, by which SICSRec can rank items after training (`content_weight`).

The paper ranks by ID vectors alone (eq. 16), though the contrastive task (eq. 18) has also drawn states to content.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stages.models.nearest import Neighbours, nearest_items, unit_content
from stages.models.sicsrec import Sicsrec


@torch.no_grad()
def neighbours_of_unseen(
    model: Sicsrec, seen: Bool[Tensor, " N"], vectors: dict[str, Float[Tensor, "N _"]]
) -> Neighbours:
    """The nearest seen items of each item that training never saw. vectors: of the encoders, by modality.

    Nearest by the model's content vectors and the encoders' together: the first know what users view together but were
    trained on seen items, the second know nothing of users.
    """
    units = unit_content({"model": model.content_vectors(), **vectors}, centre=seen)
    every = torch.arange(1, len(seen) + 1, device=seen.device)
    return nearest_items(units, of=every[~seen], among=every[seen])


@torch.no_grad()
def content_scored_vectors(
    model: Sicsrec, seen: Bool[Tensor, " N"], neighbours: Neighbours, *, weight: float, unseen_scale: float
) -> Float[Tensor, "N D"]:
    """(1 − w) · unit ID vector + w · unit content vector of every item. Without `id`: the unit content vector.

    seen: whether an item occurs in training. The ID vector of one that does not was only ever pushed away from states,
    as a negative. Its vector is the mean of those of its `neighbours` times `unseen_scale`: the mean knows what users
    view together, which the content vector of an unseen item does not.
    """
    content = model.content_vectors()
    vectors = (1 - weight) * model.candidates(None) + weight * content if model.config.use_id else content.clone()
    vectors[~seen] = unseen_scale * neighbours.mean(vectors)
    return vectors
