"""Full ranking: the rank of each user's target among all items, nothing sampled (paper section 4.1)."""

from itertools import islice
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stages.data.histories import Histories, history_batches, padded_histories
from stages.parallel import distributed

USERS_PER_BLOCK = 1024
SCORES_PER_BLOCK = 2**25  # 128 MB: in a large catalogue a block has fewer users


def count_above(scores: Float[Tensor, "P N"], own: Float[Tensor, "P 1"]) -> Int[Tensor, " P"]:
    """How many scores of each row are at least `own`, the target's score: its rank, ties counted against it.

    Raises ValueError on NaN, with which every comparison is false.
    """
    if torch.isnan(scores.amax()):  # the maximum of anything with a NaN is NaN
        raise ValueError("scores hold NaN")
    above = torch.ge(scores, own, out=torch.empty_like(scores))  # summing bools is several times slower
    return above.sum(dim=1).long()


def rank_targets(
    scores: Float[Tensor, "P N"], targets: Int[Tensor, " P"], viewed: Int[Tensor, "P L"]
) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
    """Ranks of the targets among all items, 1 = best: viewed items kept (the paper's protocol), and filtered out.

    targets: 1…N. viewed: the items of each history, 0 = padding. A target is ranked even if it was viewed before.
    Source: Krichene & Rendle 2020.
    """
    own = scores.gather(1, (targets - 1)[:, None])
    kept = count_above(scores, own)
    viewed = viewed.sort(dim=1).values
    counts = (viewed > 0) & (viewed != targets[:, None])
    counts[:, 1:] &= viewed[:, 1:] != viewed[:, :-1]  # an item that was viewed twice counts once
    above = scores.gather(1, (viewed - 1).clamp(min=0)) >= own
    return kept, kept - (above & counts).sum(dim=1)


@runtime_checkable
class RankingModel(Protocol):
    """What ranking calls: states of histories, and vectors of items. Scores are their dot products."""

    def last_hidden(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """State after each row's last item. items: 0 = padding at the right."""

    def item_matrix(self) -> Float[Tensor, "*parts N D"]:
        """The vectors that states are scored against: row i − 1 is item i. parts: none, unless it is a ScoringModel."""


@runtime_checkable
class ScoringModel(RankingModel, Protocol):
    """A model whose scores are not dot products."""

    def scores(self, hidden: Float[Tensor, "B D"], items: Float[Tensor, "*parts N D"]) -> Float[Tensor, "B N"]:
        """Scores of all items after each history. hidden: of `last_hidden`. items: of `item_matrix`."""


def scores_of(
    model: RankingModel, hidden: Float[Tensor, "B D"], items: Float[Tensor, "*parts N D"]
) -> Float[Tensor, "B N"]:
    """The model's scores of all items after each history (eq. 16)."""
    return model.scores(hidden, items) if isinstance(model, ScoringModel) else hidden @ items.T


@torch.no_grad()
def rank_users(
    model: RankingModel,
    histories: Histories,
    targets: Int[np.ndarray, " users"],
    *,
    max_length: int,
    device: torch.device,
) -> tuple[Int[np.ndarray, " users"], Int[np.ndarray, " users"]]:
    """Ranks of all users' targets after their histories, 1 = best: viewed items kept, and filtered out.

    targets: 1…N, in the histories' order. max_length: the latest items that the model reads; all viewed items are
    filtered. With several processes each ranks some blocks of users, and all of them return all ranks.
    """
    items = model.item_matrix()
    ranks = torch.zeros(2, len(targets), dtype=torch.int64, device=device)
    size = max(1, min(USERS_PER_BLOCK, SCORES_PER_BLOCK // items.shape[-2]))
    blocks = history_batches(histories, max_length=max_length, batch_users=size)
    for users, block in islice(blocks, distributed.rank(), None, distributed.world_size()):
        hidden = model.last_hidden(block.to(device))
        wanted = torch.from_numpy(targets[users].astype(np.int64)).to(device)
        viewed = torch.from_numpy(padded_histories(histories, users)).to(device)  # also what max_length cuts off
        block_ranks = rank_targets(scores_of(model, hidden, items), wanted, viewed)
        ranks[:, torch.from_numpy(users).to(device)] = torch.stack(block_ranks)
    kept, filtered = distributed.all_reduce_sum(ranks).cpu().numpy()
    return kept, filtered
