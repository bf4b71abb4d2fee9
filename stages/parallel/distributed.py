"""Collectives for data-parallel training with `launch: torchrun …`; with one process every function is the identity.

Every rank iterates over the same batches in the same order and computes its shard of the rows of each. On CPUs all
ranks draw the random numbers of the whole batch and use their slice of them, so that any world size trains the same
model; GPUs draw dropout by their own generators.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate.utils import broadcast_object_list
from torch import Tensor

from stages.parallel.static_shapes import UniqueItems, unique_items

BatchParts = tuple[Tensor | np.ndarray, ...]  # tensors are sent to the device, NumPy arrays stay in main memory


@dataclass
class Shard:
    """The rows of the current batch that belong to this rank: `own` of `total`, from row `first`."""

    first: int
    own: int
    total: int


_shard: Shard | None = None  # process-wide, like torch's generator: dropout deep inside a model reads it


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number, 0…world_size − 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def shard_batches(batches: Iterable[BatchParts]) -> Iterator[BatchParts]:
    """This rank's rows of each batch. A batch with fewer rows than ranks is computed whole by every rank."""
    global _shard
    for batch in batches:
        total = len(batch[0])
        if world_size() == 1 or total < world_size():
            yield batch
            continue
        first, end = (total * n // world_size() for n in (rank(), rank() + 1))
        _shard = Shard(first, end - first, total)
        try:
            yield tuple(part[first:end] for part in batch)
        finally:  # also if the caller stops amid an epoch: what follows is of no batch
            _shard = None


def random_shape(shape: tuple[int, ...]) -> tuple[tuple[int, ...], slice]:
    """Shape in which to draw random numbers so that all ranks use one stream, and the slice of it that is this rank's.

    A tensor whose first dimension is not the rank's share of the batch is drawn whole.
    """
    if _shard is None or shape[0] != _shard.own:
        return shape, slice(None)
    return (_shard.total, *shape[1:]), slice(_shard.first, _shard.first + _shard.own)


def mean_across_ranks(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over the values of all ranks, or over those that `mask` selects. values: (n,), mask: (n,) bool → scalar.

    Returns this rank's sum, divided by the global count and multiplied by the world size: DistributedDataParallel
    *averages* gradients over ranks, and the average of these terms is the global mean.
    """
    if mask is None:
        mask = torch.ones_like(values, dtype=torch.bool)
    total, count = torch.where(mask, values, 0).sum(), mask.sum()
    return total * world_size() / all_reduce_sum(count)


def all_gather_rows(rows: Tensor) -> Tensor:
    """Rows of all ranks, in rank order. rows: (n, …), where n may differ between ranks → (Σ n, …).

    Only this rank's rows carry gradient, scaled by world size, so that DDP's averaging of gradients gives the gradient
    of a loss over all rows.
    """
    if world_size() == 1:
        return rows
    sizes = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    lengths = [int(size) for size in sizes]
    padded = rows.new_zeros(max(lengths), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    received = [torch.zeros_like(padded) for _ in lengths]
    dist.all_gather(received, padded)
    parts = [part[:length] for part, length in zip(received, lengths, strict=True)]
    if rows.requires_grad:
        parts[rank()] = rows * world_size() - rows.detach() * (world_size() - 1)
    return torch.cat(parts)


def unique_across_ranks(items: Tensor) -> UniqueItems:
    """Unique items of all ranks' tensors, and the index of each of this rank's items among them. items: (…)."""
    if world_size() == 1:
        return unique_items(items)
    unique = all_gather_rows(items.flatten()).unique()
    inverse = torch.searchsorted(unique, items.contiguous())
    return UniqueItems(unique, inverse, torch.ones_like(unique, dtype=torch.bool))


def gather_matrix(parts: list[tuple[Tensor, Tensor]], total: int) -> Tensor:
    """Assemble a matrix of which each rank has computed some rows. parts: [(row indices (n,), rows (n, width))].

    → (total, width) float32 in main memory, the same on all ranks.
    """
    width = torch.tensor(max((rows.shape[1] for _, rows in parts), default=0))
    if world_size() > 1:
        dist.all_reduce(width, dist.ReduceOp.MAX)
    matrix = torch.zeros(total, int(width))
    for indices, rows in parts:
        matrix[indices] = rows.float().cpu()
    return all_reduce_sum(matrix)


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over ranks, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def broadcast_from_main(value: Any) -> Any:
    """The value that rank 0 passes, on all ranks."""
    return broadcast_object_list([value])[0] if world_size() > 1 else value
