"""What is picked by its value, without waiting for a card.

How many positions have a target, or how many items of a batch are different, depends on the numbers. A CPU knows them.
On a card asking would stop the host until all work so far is done, so there the result keeps the size of what it is
picked from, and says which of it is real.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Different(NamedTuple):
    """The different items of a tensor, ascending.

    items: (n,). where: in the tensor's shape, each one's place in `items`. real: (n,) bool; what is not repeats the
    last item, to fill up.
    """

    items: Tensor
    where: Tensor
    real: Tensor


def different(items: Tensor) -> Different:
    """Each item once. items: (…) → n is the number of different ones on a CPU, of all on a card."""
    if items.device.type == "cpu":
        values, where = items.unique(return_inverse=True)
        return Different(values, where, torch.ones_like(values, dtype=torch.bool))
    ordered, order = items.flatten().sort()
    number = F.pad(ordered[1:] != ordered[:-1], (1, 0)).cumsum(0)  # of its value among the different ones
    first = torch.searchsorted(number, torch.arange(len(number), device=items.device))  # where each of them begins
    real = first < len(number)
    return Different(ordered[first.clamp(max=len(number) - 1)], number[order.argsort()].view(items.shape), real)


def at_targets(states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The states after which something is to be predicted, and what. states: (B, L, D), targets: (B, L), 0 = nothing.

    → (P, D), (P,); on a card of all positions, still with 0 where there is no target.
    """
    if targets.device.type == "cpu":
        wanted = targets > 0
        return states[wanted], targets[wanted]
    return states.flatten(0, 1), targets.flatten()
