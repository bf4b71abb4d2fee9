"""`content_weight`: after training, rank items by ID and content vectors; `auto` chooses the weight on validation."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stages.models.content_scoring import content_scored_vectors, neighbours_of_unseen
from stages.models.scores import inner_products
from stages.models.sicsrec import Sicsrec
from stages.training.next_item import TrainingData, validation_metrics

WEIGHTS = tuple(tenths / 10 for tenths in range(11))  # tried by `auto`
UNSEEN_SCALES = tuple(tenths / 10 for tenths in range(5, 21))  # the largest that costs at most TOLERANCE is taken
TOLERANCE = 0.005  # share of the validation metric over all users that ranking unseen items may cost


@dataclass(frozen=True)
class RankedBy:
    """A model whose items are ranked by other vectors than its own, some of them after all others."""

    model: Sicsrec
    vectors: Tensor  # (N, D)
    last: Tensor  # (N,) bool

    def last_hidden(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """The model's state after each row's last item."""
        return self.model.last_hidden(items)

    def item_matrix(self) -> Float[Tensor, "N D"]:
        """The other vectors."""
        return self.vectors

    def scores(self, hidden: Float[Tensor, "B D"], items: Float[Tensor, "N D"]) -> Float[Tensor, "B N"]:
        """Inner products, −∞ of the items that are ranked last."""
        return inner_products(hidden, items).masked_fill(self.last, float("-inf"))


def score_with_content(
    model: Sicsrec,
    data: TrainingData,
    vectors: dict[str, Float[Tensor, "N _"]],
    weight: float | Literal["auto"],
    *,
    monitor: str,
    device: torch.device,
) -> dict[str, Any]:
    """Let the model rank by vectors that hold `weight` of content; `auto`: the best of WEIGHTS by validation `monitor`.

    Of equal weights the smallest is chosen. Without `id` items are scored by content alone, and the weight is 1. Then
    the vectors of items that training never saw are scaled up as long as ranking them costs no more than TOLERANCE.
    vectors: of the encoders, by modality.
    → what was chosen and its validation `monitor`, that of each weight tried (unseen items left out), and the number of
    unseen items.
    """
    seen = torch.from_numpy(data.histories.counts(data.items) > 0).to(device)
    neighbours = neighbours_of_unseen(model, seen, {name: matrix.to(device) for name, matrix in vectors.items()})

    def mixed(tried: float, unseen_scale: float) -> Tensor:
        return content_scored_vectors(model, seen, neighbours, weight=tried, unseen_scale=unseen_scale)

    def validate(tried: float, unseen_scale: float | None) -> float:
        """unseen_scale: None leaves unseen items out."""
        last = torch.zeros_like(seen) if unseen_scale is not None else ~seen
        ranked = RankedBy(model, mixed(tried, unseen_scale or 0.0), last)
        found = validation_metrics(
            ranked, data.before_valid, data.valid, monitor=monitor, max_length=model.config.max_length, device=device
        )
        return found[monitor]

    weights = WEIGHTS if weight == "auto" else (weight,)
    measured = {tried: validate(tried, None) for tried in (weights if model.config.use_id else (1.0,))}
    chosen = max(measured, key=measured.__getitem__)
    scale, validation = 0.0, measured[chosen]
    for larger in UNSEEN_SCALES if not seen.all() else ():
        found = validate(chosen, larger)
        if found < (1 - TOLERANCE) * measured[chosen]:
            break
        scale, validation = larger, found
    if not scale and not seen.all():  # every scale costs too much: unseen items score 0
        validation = validate(chosen, 0.0)
    model.rank_by(mixed(chosen, scale), content_weight=chosen)
    return {
        "chosen": chosen,
        "validation": validation,
        "unseen_scale": scale,
        "unseen_items": int((~seen).sum()),
        "tried": {str(tried): value for tried, value in measured.items()},
    }
