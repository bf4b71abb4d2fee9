"""Full ranking: the rank of each user's target among all items, nothing sampled (paper section 4.1)."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stages.data.histories import Histories, history_batches, padded_histories
from stages.models.scores import aligned, inner_products
from stages.parallel import distributed

USERS_PER_BLOCK = 256  # what a block computes stays in the cache: 1,024 take a quarter longer
SCORES_PER_BLOCK = 2**25  # 128 MB: in a large catalogue a block has fewer users
VIEWED_PER_PART = 2**22  # of a block, padded: one very long history would widen the rows of all 256 users
ITEMS_PER_COUNT = 2**13  # on a CPU: what is read twice stays in the cache


def count_above(scores: Float[Tensor, "P N"], own: Float[Tensor, "P 1"]) -> Int[Tensor, " P"]:
    """How many scores of each row are at least `own`, the target's score: its rank, ties counted against it.

    Raises ValueError on NaN, with which every comparison is false.
    """
    ranks = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    width = ITEMS_PER_COUNT if scores.device.type == "cpu" else scores.shape[1]  # each check for NaN waits for a GPU
    for part in scores.split(width, dim=1):
        if torch.isnan(part.amax()):  # the maximum of anything with a NaN is NaN
            raise ValueError("scores hold NaN")
        above = torch.ge(part, own, out=torch.empty_like(part))  # summing bools is several times slower
        ranks += above.sum(dim=1).long()
    return ranks


def target_scores(scores: Float[Tensor, "P N"], targets: Int[Tensor, " P"]) -> Float[Tensor, "P 1"]:
    """The score of each row's target. targets: 1…N."""
    return scores.gather(1, (targets - 1)[:, None])


def rank_targets(
    scores: Float[Tensor, "P N"], targets: Int[Tensor, " P"], viewed: Int[Tensor, "P L"]
) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
    """Ranks of the targets among all items, 1 = best: viewed items kept (the paper's protocol), and filtered out.

    targets: 1…N. viewed: the items of each history, 0 = padding. A target is ranked even if it was viewed before.
    Source: Krichene & Rendle 2020.
    """
    own = target_scores(scores, targets)
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
    model: RankingModel,
    hidden: Float[Tensor, "B D"],
    items: Float[Tensor, "*parts N D"],
    memory: Float[Tensor, " size"] | None = None,
) -> Float[Tensor, "B N"]:
    """The model's scores of all items after each history (eq. 16). memory: see `inner_products`."""
    return model.scores(hidden, items) if isinstance(model, ScoringModel) else inner_products(hidden, items, memory)


class ScoredUsers(NamedTuple):
    """Scores of all items for a block of users, overwritten by the next block's.

    users: their rows of the histories. targets: 1…N.
    """

    users: np.ndarray
    scores: Tensor
    targets: Tensor


def score_users(
    model: RankingModel,
    histories: Histories,
    targets: Int[np.ndarray, " users"],
    *,
    max_length: int,
    device: torch.device,
) -> Iterator[ScoredUsers]:
    """Scores of the users that this process ranks, in blocks of users of similar history length."""
    items = model.item_matrix()
    size = max(1, min(USERS_PER_BLOCK, SCORES_PER_BLOCK // items.shape[-2]))
    memory = torch.empty(size * aligned(items.shape[-2]), dtype=items.dtype) if device.type == "cpu" else None
    blocks = history_batches(histories, max_length=max_length, batch_users=size)
    for users, block in islice(blocks, distributed.rank(), None, distributed.world_size()):
        scores = scores_of(model, model.last_hidden(block.to(device)), items, memory)
        yield ScoredUsers(users, scores, torch.from_numpy(targets[users].astype(np.int64)).to(device))


def viewed_items(
    histories: Histories, users: np.ndarray, device: torch.device
) -> Iterator[tuple[slice, Int[Tensor, "P L"]]]:
    """All items of the users' histories, also those that max_length cuts off: a part of the users after another.

    users: rows of the histories. → the part's place in `users`, and its items, 0 = padding.
    """
    longest = int((histories.offsets[users + 1] - histories.offsets[users]).max(initial=1))
    size = max(1, VIEWED_PER_PART // longest)
    for begin in range(0, len(users), size):
        part = slice(begin, begin + size)
        yield part, torch.from_numpy(padded_histories(histories, users[part])).to(device)


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
    ranks = torch.zeros(2, len(targets), dtype=torch.int64, device=device)
    for users, scores, wanted in score_users(model, histories, targets, max_length=max_length, device=device):
        rows = torch.from_numpy(users).to(device)
        for part, viewed in viewed_items(histories, users, device):
            ranks[:, rows[part]] = torch.stack(rank_targets(scores[part], wanted[part], viewed))
    kept, filtered = distributed.all_reduce_sum(ranks).cpu().numpy()
    return kept, filtered


@torch.no_grad()
def rank_users_with_viewed_kept(
    model: RankingModel,
    histories: Histories,
    targets: Int[np.ndarray, " users"],
    *,
    max_length: int,
    device: torch.device,
) -> Int[np.ndarray, " users"]:
    """The first of `rank_users`' ranks alone, without the time that filtering takes."""
    ranks = torch.zeros(len(targets), dtype=torch.int64, device=device)
    for users, scores, wanted in score_users(model, histories, targets, max_length=max_length, device=device):
        ranks[torch.from_numpy(users).to(device)] = count_above(scores, target_scores(scores, wanted))
    return distributed.all_reduce_sum(ranks).cpu().numpy()
