"""The items that a trained model recommends next."""

import torch

from stages.training.ranking import RankingModel, scores_of


@torch.inference_mode()
def best_items(
    model: RankingModel, history: list[int], *, top: int, viewed: bool, max_length: int, device: torch.device
) -> tuple[list[int], list[float]]:
    """Numbers and scores of at most `top` items, best first.

    history: item numbers, oldest first, of which the latest `max_length` are read. viewed: whether items of the
    history may be recommended again.
    """
    latest = torch.tensor([history[-max_length:]], device=device)
    scores = scores_of(model, model.last_hidden(latest), model.item_matrix())[0]
    if not viewed:
        scores[torch.tensor(history, device=device) - 1] = float("-inf")
    best = scores.topk(min(top, len(scores)))
    allowed = torch.isfinite(best.values)
    return (best.indices[allowed] + 1).tolist(), best.values[allowed].tolist()
