"""The items that a trained model recommends next."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stages.training.ranking import SCORES_PER_BLOCK, RankingModel, ScoringModel, scores_of

LARGEST_ROW_FOR_NUMPY = 200  # times `top`: of larger rows torch.topk selects as fast
SCORES_PER_CPU_BLOCK = 2**21  # 8 MB: stays in the cache, and its memory is used again for the next block
ITEMS_PER_GROUP = 16


def highest(
    scores: Float[Tensor, "B N"], top: int, numbers: Int[Tensor, "B N"] | None = None
) -> tuple[Float[Tensor, "B top"], Int[Tensor, "B top"]]:
    """The `top` highest scores of each row and their columns, highest first; of equal scores the first column's.

    numbers: by which equal scores are ordered instead of by column; of each row no two are equal. top: at most N.
    """
    values, columns = _selected(scores, min(top + 1, scores.shape[1]))  # one more: is the last score that of another?
    tied = (values[:, 1:] == values[:, :-1]).any(dim=1).nonzero().flatten()
    values, columns = values[:, :top], columns[:, :top]
    if len(tied):
        number = numbers[tied] if numbers is not None else torch.arange(scores.shape[1], device=scores.device)
        by_number = number.argsort(dim=-1).expand(len(tied), -1)
        best = scores[tied].gather(1, by_number).sort(dim=1, descending=True, stable=True)
        values[tied], columns[tied] = best.values[:, :top], by_number.gather(1, best.indices)[:, :top]
    return values, columns


def _selected(scores: Float[Tensor, "B N"], top: int) -> tuple[Float[Tensor, "B top"], Int[Tensor, "B top"]]:
    """The `top` highest scores of each row and their columns, highest first, as `torch.topk`: equal ones in any order.

    On a CPU numpy's selection by vector instructions is faster unless `top` is a small part of the row: 100 of 2,000
    take about a third of the time of `torch.topk` (`python -m stages.bench.recommend`).
    """
    if scores.device.type != "cpu" or scores.shape[1] > top * LARGEST_ROW_FOR_NUMPY:
        best = scores.topk(top)
        return best.values, best.indices
    columns = torch.from_numpy(np.argpartition(scores.numpy(), -top, axis=1)[:, -top:])
    values, order = scores.gather(1, columns).topk(top)
    return values, columns.gather(1, order)


def columns_above(scores: Float[Tensor, "B N"], lowest: Float[Tensor, "B 1"]) -> Int[Tensor, "B n"]:
    """Columns of each row among which are all that score above `lowest`: far fewer than N where few do.

    Columns are compared by the maximum of a group of ITEMS_PER_GROUP. Every row gets as many groups as the row that
    needs most, and the columns that are left over by the groups.
    """
    groups = scores.shape[1] // ITEMS_PER_GROUP  # column c is in group c % groups: maxima over rows of memory are fast
    highest_of_group = scores[:, : groups * ITEMS_PER_GROUP].unflatten(1, (ITEMS_PER_GROUP, groups)).amax(dim=1)
    most = int((highest_of_group > lowest).sum(dim=1).max())
    first = highest_of_group.topk(most, sorted=False).indices
    of_groups = first[:, :, None] + groups * torch.arange(ITEMS_PER_GROUP, device=scores.device)
    left_over = torch.arange(groups * ITEMS_PER_GROUP, scores.shape[1], device=scores.device)
    return torch.cat([of_groups.flatten(1), left_over.expand(len(scores), -1)], dim=1)


def items_per_block(model: RankingModel, states: int, items: int, device: torch.device) -> int:
    """How many items are scored at once for so many states: all, if the model may need the scores of all at once."""
    if isinstance(model, ScoringModel):
        return items
    return max(1, (SCORES_PER_CPU_BLOCK if device.type == "cpu" else SCORES_PER_BLOCK) // states)


@torch.inference_mode()
def top_items(
    model: RankingModel,
    matrix: Float[Tensor, "*parts N D"],
    hidden: Float[Tensor, "B D"],
    left_out: tuple[Int[Tensor, " viewed"], Int[Tensor, " viewed"]] | None,
    *,
    top: int,
) -> tuple[Int[Tensor, "B top"], Float[Tensor, "B top"]]:
    """Numbers and scores of the `top` best items of each state, best first; −inf: no further item may be recommended.

    Of items with equal scores the one with the lower number comes first, so that `top` does not change their order.
    matrix: of `item_matrix`, scored in blocks of items, so that memory does not grow with N. hidden: of `last_hidden`.
    left_out: rows of `hidden`, and the item to leave out of each, None: no item is. top: at most N.
    """
    size = max(top, items_per_block(model, len(hidden), matrix.shape[-2], hidden.device))

    def scores_from(start: int) -> Tensor:
        """Scores of a block of items, of which the first is start + 1."""
        scores = scores_of(model, hidden, matrix[..., start : start + size, :])
        if left_out:
            rows, viewed = left_out[0], left_out[1] - 1 - start
            inside = (viewed >= 0) & (viewed < scores.shape[1])
            scores[rows[inside], viewed[inside]] = float("-inf")
        return scores

    values, columns = highest(scores_from(0), top)
    numbers = columns + 1
    for start in range(size, matrix.shape[-2], size):
        scores = scores_from(start)
        columns = columns_above(scores, values[:, -1:])
        numbers = torch.cat([numbers, columns + start + 1], dim=1)
        values, columns = highest(torch.cat([values, scores.gather(1, columns)], dim=1), top, numbers)
        numbers = numbers.gather(1, columns)
    return numbers, values


@torch.inference_mode()
def best_items(
    model: RankingModel, history: list[int], *, top: int, viewed: bool, max_length: int, device: torch.device
) -> tuple[list[int], list[float]]:
    """Numbers and scores of at most `top` items, best first.

    history: item numbers, oldest first, of which the latest `max_length` are read. viewed: whether items of the
    history may be recommended again.
    """
    items = torch.tensor(history, device=device)
    matrix = model.item_matrix()
    left_out = None if viewed else (torch.zeros_like(items), items)
    hidden = model.last_hidden(items[None, -max_length:])
    numbers, scores = top_items(model, matrix, hidden, left_out, top=min(top, matrix.shape[-2]))
    allowed = torch.isfinite(scores[0])
    return numbers[0, allowed].tolist(), scores[0, allowed].tolist()
