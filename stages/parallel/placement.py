"""Where data that is read every step is kept: in GPU memory if it fits, else in main memory, copied per batch."""

import torch
from torch import Tensor

LARGEST_SHARE = 1 / 4  # of the GPU's free memory, that data may take


def choose_placement(size: int, device: torch.device) -> torch.device:
    """`device` itself for data of `size` bytes, or the CPU when a GPU has too little free memory for it."""
    if device.type == "cuda" and size > LARGEST_SHARE * torch.cuda.mem_get_info(device)[0]:
        return torch.device("cpu")
    return device


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; to a GPU asynchronously, which only works out of pinned memory."""
    if device.type in ("cpu", "mps") or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
