"""Data-dependent shapes without a GPU sync.

`x[mask]` and `unique()` have sizes that the host only knows once the kernel has run, so that on CUDA it would wait for
all work queued so far. On the CPU we compact; on other devices we return fixed-size outputs and a validity mask.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class UniqueItems(NamedTuple):
    """The unique items of a tensor, ascending.

    items: (n,). inverse: in the input's shape, the index in `items` of each element. valid: (n,) bool; entries that
    are not valid repeat the last item as padding.
    """

    items: Tensor
    inverse: Tensor
    valid: Tensor


def unique_items(items: Tensor) -> UniqueItems:
    """Each item once. items: (…) → n is the number of unique items on the CPU, of all elements elsewhere."""
    if items.device.type == "cpu":
        values, inverse = items.unique(return_inverse=True)
        return UniqueItems(values, inverse, torch.ones_like(values, dtype=torch.bool))
    ordered, order = items.flatten().sort()
    index = F.pad(ordered[1:] != ordered[:-1], (1, 0)).cumsum(0)  # of each element's value among the unique ones
    first = torch.searchsorted(index, torch.arange(len(index), device=items.device))  # where each unique value begins
    valid = first < len(index)
    return UniqueItems(ordered[first.clamp(max=len(index) - 1)], index[order.argsort()].view(items.shape), valid)


def select_targets(states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """States of the positions that have a target, and those targets. states: (B, L, D), targets: (B, L), 0 = none.

    → (P, D), (P,); off the CPU all B · L positions, with 0 where there is no target.
    """
    if targets.device.type == "cpu":
        mask = targets > 0
        return states[mask], targets[mask]
    return states.flatten(0, 1), targets.flatten()
