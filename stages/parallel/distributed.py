"""What processes that train one model together tell each other (`launch: torchrun …`); one process alone tells nothing.

Every process walks through the same batches in the same order and computes its rows of each. All of them draw the
random numbers of the whole batch, so that together they train the model that one process would.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate.utils import broadcast_object_list
from torch import Tensor

from stages.parallel.static_shapes import Different, different

Parts = tuple[Tensor | np.ndarray, ...]  # of a batch; the arrays are read in main memory


@dataclass
class Rows:
    """Which rows of the batch in hand this process has: `total` in all, `own` of them from `first` on."""

    first: int
    own: int
    total: int


_rows: Rows | None = None  # like torch's generator a state of the process: dropout deep in a model asks for it


def count() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def number() -> int:
    """Which one this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def own_rows(batches: Iterable[Parts]) -> Iterator[Parts]:
    """This process's rows of each batch. A batch with fewer rows than processes is computed by all of them."""
    global _rows
    for batch in batches:
        total = len(batch[0])
        if count() == 1 or total < count():
            yield batch
            continue
        first, end = (total * n // count() for n in (number(), number() + 1))
        _rows = Rows(first, end - first, total)
        yield tuple(part[first:end] for part in batch)
        _rows = None


def row_shape(shape: tuple[int, ...]) -> tuple[tuple[int, ...], slice]:
    """For what shape to draw random numbers for a tensor of this process's rows, and which of them are its own.

    Of what does not go by the batch's rows, everything.
    """
    if _rows is None or shape[0] != _rows.own:
        return shape, slice(None)
    return (_rows.total, *shape[1:]), slice(_rows.first, _rows.first + _rows.own)


def mean(values: Tensor, known: Tensor | None = None) -> Tensor:
    """The mean of all processes' values, or of those that are `known`. values: (n,), known: (n,) bool → scalar.

    The value is this process's part, so scaled that values and gradients *averaged* over the processes, as
    DistributedDataParallel does with gradients, are those of the whole mean.
    """
    if known is None:
        known = torch.ones_like(values, dtype=torch.bool)
    total, everyone = torch.where(known, values, 0).sum(), known.sum()
    return total * count() / summed(everyone)


def gathered(rows: Tensor) -> Tensor:
    """The rows of all processes, in the processes' order. rows: (n, …), n may differ → (Σ n, …).

    Gradients reach this process's own rows, `count()`-fold: where every process computes the same loss of the gathered
    rows, the gradients averaged over the processes are that loss's gradients.
    """
    if count() == 1:
        return rows
    sizes = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(count())]
    dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    lengths = [int(size) for size in sizes]
    padded = rows.new_zeros(max(lengths), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    received = [torch.zeros_like(padded) for _ in lengths]
    dist.all_gather(received, padded)
    parts = [part[:length] for part, length in zip(received, lengths, strict=True)]
    if rows.requires_grad:
        parts[number()] = rows * count() - rows.detach() * (count() - 1)
    return torch.cat(parts)


def distinct(items: Tensor) -> Different:
    """The different items of all processes' rows, and where this process's are. items: (…)."""
    if count() == 1:
        return different(items)
    everything = gathered(items.flatten()).unique()
    where = torch.searchsorted(everything, items.contiguous())
    return Different(everything, where, torch.ones_like(everything, dtype=torch.bool))


def united(parts: list[tuple[Tensor, Tensor]], total: int) -> Tensor:
    """A matrix whose rows the processes have made between them. parts: [(rows' numbers (n,), rows (n, width))].

    → (total, width), the same in all of them.
    """
    width = torch.tensor(max((rows.shape[1] for _, rows in parts), default=0))
    if count() > 1:
        dist.all_reduce(width, dist.ReduceOp.MAX)
    whole = torch.zeros(total, int(width))
    for numbers, rows in parts:
        whole[numbers] = rows.float().cpu()
    return summed(whole)


def summed(tensor: Tensor) -> Tensor:
    """The sum over the processes, in place."""
    if count() > 1:
        dist.all_reduce(tensor)
    return tensor


def from_first(value: Any) -> Any:
    """What the first process passes, in all of them."""
    return broadcast_object_list([value])[0] if count() > 1 else value
