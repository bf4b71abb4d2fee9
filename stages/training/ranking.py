"""Full ranking: the rank of each user's target among all items, nothing sampled (paper section 4.1)."""

from itertools import islice
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from stages.data.histories import Histories, history_batches, padded_histories
from stages.parallel import distributed

USERS_A_BLOCK = 1024
SCORES_A_BLOCK = 2**25  # fewer users a block in a large catalogue: 128 MB of scores


def count_above(scores: Tensor, own: Tensor) -> Tensor:
    """How many scores of each row are no lower than `own`: the target's rank, ties against it.

    scores (P, N), own (P, 1) → (P,) int64. Raises ValueError on NaN, which no comparison would notice.
    """
    if torch.isnan(scores.amax()):  # the maximum of anything with a NaN is NaN
        raise ValueError("scores hold NaN")
    above = torch.ge(scores, own, out=torch.empty_like(scores))  # summing bools is several times slower
    return above.sum(dim=1).long()


def rank_targets(scores: Tensor, targets: Tensor, viewed: Tensor) -> tuple[Tensor, Tensor]:
    """Ranks of the targets among all items with viewed items kept (the paper's protocol), and with them left out.

    scores (P, N); targets (P,) in 1…N; viewed (P, L): items of each history, 0 = padding; a target that was viewed
    before stays in. → two (P,) int64, 1 = best. Source: Krichene & Rendle 2020.
    """
    own = scores.gather(1, (targets - 1)[:, None])
    kept = count_above(scores, own)
    viewed = viewed.sort(dim=1).values
    counts = (viewed > 0) & (viewed != targets[:, None])
    counts[:, 1:] &= viewed[:, 1:] != viewed[:, :-1]  # an item that was viewed twice is one item
    above = scores.gather(1, (viewed - 1).clamp(min=0)) >= own
    return kept, kept - (above & counts).sum(dim=1)


@runtime_checkable
class RankingModel(Protocol):
    """What ranking calls. A model whose scores are not dot products also has `scores(hidden, item_matrix)`."""

    def last_hidden(self, items: Tensor) -> Tensor: ...

    def item_matrix(self) -> Tensor: ...


def _dot_products(hidden: Tensor, items: Tensor) -> Tensor:
    return hidden @ items.T


@torch.no_grad()
def rank_users(
    model: RankingModel, histories: Histories, targets: np.ndarray, *, max_length: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Rank every user's target after its history, in blocks of users, viewed items kept and left out.

    targets: (users,) in 1…N, in the histories' order → two arrays (users,) int64, 1 = best. Several processes share the
    blocks, and all of them get all ranks.
    """
    items = model.item_matrix()
    score = getattr(model, "scores", _dot_products)
    ranks = torch.zeros(2, len(targets), dtype=torch.int64, device=device)
    size = max(1, min(USERS_A_BLOCK, SCORES_A_BLOCK // items.shape[-2]))
    blocks = history_batches(histories, max_length, size)
    for users, block in islice(blocks, distributed.rank(), None, distributed.world_size()):
        hidden = model.last_hidden(block.to(device))
        wanted = torch.from_numpy(targets[users].astype(np.int64)).to(device)
        viewed = torch.from_numpy(padded_histories(histories, users)).to(device)  # all of it, beyond max_length too
        ranks[:, torch.from_numpy(users).to(device)] = torch.stack(rank_targets(score(hidden, items), wanted, viewed))
    kept, filtered = distributed.all_reduce_sum(ranks).cpu().numpy()
    return kept, filtered
