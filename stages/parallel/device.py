"""The device and the precision to compute in, set up so that the same run gives the same bits."""

import atexit
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from accelerate import PartialState

from stages.errors import InputError

Precision = Literal["auto", "float32", "bfloat16"]
_precision: Precision = "auto"  # of this process, like torch's own settings: `choose_device` sets it


def choose_device(device: str, precision: Precision = "auto") -> torch.device:
    """The device that params.yaml names; `auto` takes CUDA if there is one, else the CPU.

    Also sets the precision of training and encoders (`uses_bfloat16`), makes torch use deterministic algorithms only
    (MPS lacks one for the gradient of an embedding: torch warns), and initialises the process group when `launch` has
    started several processes, each then on a GPU of its own.
    Raises InputError when the machine does not have the device, or the device no bfloat16.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA fails an assertion
        raise InputError(f"device={device} is not available on this machine: set device=auto or device=cpu") from error
    set_precision(precision, torch.device(device))
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


def set_precision(precision: Precision, device: torch.device) -> None:
    """What `uses_bfloat16` and `precision_in_use` answer from now on. Raises InputError: see `choose_device`."""
    global _precision
    if precision == "bfloat16" and not (device.type == "cpu" or _gpu_has_bfloat16(device)):
        raise InputError(f"precision=bfloat16: {device} has no bfloat16: set precision=auto or precision=float32")
    _precision = precision


def precision_in_use() -> Precision:
    """The precision that `choose_device` set."""
    return _precision


def uses_bfloat16(device: torch.device) -> bool:
    """Whether training and encoders compute in bfloat16 (mixed precision): weights, sums and ranking are in float32.

    `auto`: on GPUs that support it, not on CPUs, many of which lack the instructions and are far slower.
    """
    return _precision == "bfloat16" or (_precision == "auto" and _gpu_has_bfloat16(device))


def _gpu_has_bfloat16(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def reduced_precision(device: torch.device) -> AbstractContextManager[None]:
    """Autocast to bfloat16 where `uses_bfloat16`, as `fit` does; otherwise no effect."""
    return torch.autocast(device.type, torch.bfloat16) if uses_bfloat16(device) else nullcontext()
