"""Which device to compute on."""

import torch

from stages.errors import InputError


def choose_device(device: str) -> torch.device:
    """The device that params.yaml names; `auto` takes CUDA, then MPS, then the CPU. InputError when it is not here."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device={device}: torch sees no CUDA device here; set device=auto or device=cpu")
    return torch.device(device)
