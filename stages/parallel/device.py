"""Which device to compute on, and that it computes the same bits each time."""

import atexit
import os
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate import PartialState

from stages.errors import InputError


def choose_device(device: str) -> torch.device:
    """The device that params.yaml names; `auto` takes CUDA, then the CPU. InputError when it is not here.

    From then on torch takes only algorithms that give the same bits in every run; MPS lacks some (of the gradient of an
    embedding), is taken only by name, and torch warns. Where `launch` has started several processes they meet here,
    each with a card of its own when there are cards.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA fails an assertion
        raise InputError(f"device={device} is not to be had here: set device=auto or device=cpu") from error
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS's own condition for repeatable sums
    torch.use_deterministic_algorithms(True, warn_only=device == "mps")
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # NCCL knows only what is on cards; counts and embeddings are in main memory
        state = PartialState(device == "cpu", backend="cuda:nccl,cpu:gloo" if device.startswith("cuda") else None)
        atexit.register(state.destroy_process_group)
        return state.device
    return torch.device(device)


def has_bfloat16(device: torch.device) -> bool:
    """Whether to compute in it: on cards that have it; many CPUs lack its instructions and are far slower."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def reduced_precision(device: torch.device) -> AbstractContextManager[None]:
    """Inside, encoders' matrix products are in bfloat16 where `has_bfloat16`, as they are in `fit`."""
    return torch.autocast(device.type, torch.bfloat16) if has_bfloat16(device) else nullcontext()
