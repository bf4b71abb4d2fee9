"""The device to compute on, set up so that the same run gives the same bits."""

import atexit
import os
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate import PartialState

from stages.errors import InputError


def choose_device(device: str) -> torch.device:
    """The device that params.yaml names; `auto` takes CUDA if there is one, else the CPU.

    Also makes torch use deterministic algorithms only (MPS lacks one for the gradient of an embedding: torch warns),
    and initialises the process group when `launch` has started several processes, each then on a GPU of its own.
    Raises InputError when the machine does not have the device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA fails an assertion
        raise InputError(f"device={device} is not available on this machine: set device=auto or device=cpu") from error
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS's own condition for repeatable sums
    torch.use_deterministic_algorithms(True, warn_only=device == "mps")
    # a debugging aid that costs time; type: ignore because torch sets this attribute at import, unseen by mypy
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # NCCL only handles tensors on GPUs; counts and embeddings are in main memory
        state = PartialState(device == "cpu", backend="cuda:nccl,cpu:gloo" if device.startswith("cuda") else None)
        atexit.register(state.destroy_process_group)
        return state.device
    return torch.device(device)


def has_bfloat16(device: torch.device) -> bool:
    """Whether to compute in bfloat16: on GPUs that support it; many CPUs lack the instructions and are far slower."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def reduced_precision(device: torch.device) -> AbstractContextManager[None]:
    """Autocast to bfloat16 where `has_bfloat16`, as `fit` does; otherwise no effect."""
    return torch.autocast(device.type, torch.bfloat16) if has_bfloat16(device) else nullcontext()
