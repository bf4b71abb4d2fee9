"""The items that a trained model would show next."""

import torch

from stages.training.ranking import RankingModel


@torch.inference_mode()
def best_items(
    model: RankingModel, history: list[int], top: int, viewed: bool, max_length: int, device: torch.device
) -> tuple[list[int], list[float]]:
    """Numbers and scores of at most `top` items, best first, the history's own only if `viewed`.

    history: item numbers, oldest first; its latest `max_length` are read.
    """
    latest = torch.tensor([history[-max_length:]], device=device)
    scores = (model.last_hidden(latest) @ model.item_matrix().T)[0]
    if not viewed:
        scores[torch.tensor(history, device=device) - 1] = float("-inf")
    best = scores.topk(min(top, len(scores)))
    kept = torch.isfinite(best.values)
    return (best.indices[kept] + 1).tolist(), best.values[kept].tolist()
