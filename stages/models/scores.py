"""Scores of all items: inner products of states and item vectors, the largest matrix product of every system."""

import torch
from jaxtyping import Float
from torch import Tensor

ALIGNMENT = 16  # numbers: 64 bytes of float32
ITEMS_PER_PRODUCT = 4096  # what one product writes stays in the cache


def on_plain_cpu(tensor: Tensor) -> bool:
    """Whether products with `tensor` are computed on a CPU and in its own type, without autocast."""
    return tensor.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def aligned(items: int) -> int:
    """The length of a row of scores in memory: `items`, rounded up to a multiple of ALIGNMENT."""
    return -(-items // ALIGNMENT) * ALIGNMENT


def inner_products(
    states: Float[Tensor, "P D"], items: Float[Tensor, "N D"], memory: Float[Tensor, " size"] | None = None
) -> Float[Tensor, "P N"]:
    """states @ items.T.

    On a CPU, where no gradient is asked for, each row of the result starts at a multiple of ALIGNMENT: where rows
    follow each other directly and N is not a multiple of 8, the matrix product takes nearly twice the time.
    memory: P · aligned(N) numbers or more, which the result is then written to; only used on a CPU. With
    many items, allocating them anew for each product takes a large part of its time.
    """
    with_gradient = torch.is_grad_enabled() and (states.requires_grad or items.requires_grad)
    if with_gradient or states.device.type != "cpu" or states.dtype != items.dtype:  # autocast makes types agree
        return states @ items.T
    shape = len(states), aligned(len(items))
    rows = torch.empty(shape, dtype=states.dtype) if memory is None else memory[: shape[0] * shape[1]].view(shape)
    for start in range(0, len(items), ITEMS_PER_PRODUCT):
        part = slice(start, min(start + ITEMS_PER_PRODUCT, len(items)))
        torch.mm(states, items[part].T, out=rows[:, part])
    return rows[:, : len(items)]
