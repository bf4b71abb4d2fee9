"""Vectors that mix ID and content, by which SICSRec can rank items after training (`content_weight`).

The paper ranks by ID vectors alone (eq. 16), though the contrastive task (eq. 18) has also drawn states to content.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from stages.models.nearest import Neighbours, nearest_items
from stages.models.sicsrec import Sicsrec


def neighbours_of_unseen(content: Float[Tensor, "N D"], seen: Bool[Tensor, " N"]) -> Neighbours:
    """The nearest seen items of each unseen one, by content vectors less the mean of the seen items' vectors."""
    units = F.normalize(content - content[seen].mean(dim=0), dim=-1)
    every = torch.arange(1, len(seen) + 1, device=seen.device)
    return nearest_items(units, of=every[~seen], among=every[seen])


@torch.no_grad()
def content_scored_vectors(
    model: Sicsrec, seen: Bool[Tensor, " N"], *, weight: float, unseen_scale: float
) -> Float[Tensor, "N D"]:
    """(1 − w) · unit ID vector + w · unit content vector of every item. Without `id`: the unit content vector.

    seen: whether an item occurs in training. The ID vector of one that does not was only ever pushed away from states,
    as a negative. Its vector is the mean of those of the seen items that are nearest by content, times `unseen_scale`:
    the mean is on the scale of the other vectors, which the content vector of an unseen item is not.
    """
    content = model.content_vectors()
    vectors = (1 - weight) * model.candidates(None) + weight * content if model.config.use_id else content.clone()
    if not seen.all():
        vectors[~seen] = unseen_scale * neighbours_of_unseen(content, seen).mean(vectors)
    return vectors
