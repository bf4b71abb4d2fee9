"""Scores of all items: inner products of states and item vectors, the largest matrix product of every system."""

import torch
from jaxtyping import Float
from torch import Tensor

ALIGNMENT = 16  # numbers: 64 bytes of float32


def on_plain_cpu(tensor: Tensor) -> bool:
    """Whether products with `tensor` are computed on a CPU and in its own type, without autocast."""
    return tensor.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def inner_products(states: Float[Tensor, "P D"], items: Float[Tensor, "N D"]) -> Float[Tensor, "P N"]:
    """states @ items.T.

    On a CPU, where no gradient is asked for, each row of the result starts at a multiple of ALIGNMENT: where rows
    follow each other directly and N is not a multiple of 8, the matrix product takes nearly twice the time.
    """
    with_gradient = torch.is_grad_enabled() and (states.requires_grad or items.requires_grad)
    if with_gradient or states.device.type != "cpu" or states.dtype != items.dtype:  # autocast makes types agree
        return states @ items.T
    width = -(-len(items) // ALIGNMENT) * ALIGNMENT
    rows = torch.empty(len(states), width, dtype=states.dtype)[:, : len(items)]
    return torch.mm(states, items.T, out=rows)
