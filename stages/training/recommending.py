"""The items that a trained model recommends next."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stages.training.ranking import SCORES_PER_BLOCK, RankingModel, scores_of

LARGEST_ROW_FOR_NUMPY = 200  # times `top`: of larger rows torch.topk selects as fast


def highest(scores: Float[Tensor, "B N"], top: int) -> tuple[Float[Tensor, "B top"], Int[Tensor, "B top"]]:
    """The `top` highest scores of each row and their columns, highest first, as `torch.topk`.

    On a CPU numpy's selection by vector instructions is faster unless `top` is a small part of the row: 100 of 2,000
    take about a third of the time of `torch.topk` (`python -m stages.bench.recommend`).
    """
    if scores.device.type != "cpu" or scores.shape[1] > top * LARGEST_ROW_FOR_NUMPY:
        best = scores.topk(top)
        return best.values, best.indices
    columns = torch.from_numpy(np.argpartition(scores.numpy(), -top, axis=1)[:, -top:])
    values, order = scores.gather(1, columns).topk(top)
    return values, columns.gather(1, order)


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

    matrix: of `item_matrix`, scored in blocks of items, so that memory does not grow with N. hidden: of `last_hidden`.
    left_out: rows of `hidden`, and the item to leave out of each, None: no item is. top: at most N.
    """
    size = max(top, SCORES_PER_BLOCK // len(hidden))
    best: tuple[Tensor, Tensor] | None = None
    for start in range(0, matrix.shape[-2], size):
        scores = scores_of(model, hidden, matrix[..., start : start + size, :])
        if left_out:
            rows, viewed = left_out[0], left_out[1] - 1 - start
            inside = (viewed >= 0) & (viewed < scores.shape[1])
            scores[rows[inside], viewed[inside]] = float("-inf")
        values, columns = highest(scores, min(top, scores.shape[1]))
        numbers = columns + start + 1
        if best:
            numbers, values = torch.cat([best[0], numbers], dim=1), torch.cat([best[1], values], dim=1)
            values, order = values.topk(top)
            numbers = numbers.gather(1, order)
        best = numbers, values
    assert best is not None  # a model has items
    return best


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
