"""Where what training reads again and again stands, on the card when there is room, and how the rest gets there."""

import torch
from torch import Tensor

SHARE = 4  # of a card's free memory, at most one part in so many


def residence(size: int, device: torch.device) -> torch.device:
    """The device itself for data of `size` bytes, or main memory when a card has too little free for it."""
    if device.type == "cuda" and size > torch.cuda.mem_get_info(device)[0] // SHARE:
        return torch.device("cpu")
    return device


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """To the device; to a card out of pinned memory, as only then neither the host nor the card waits."""
    if device.type in ("cpu", "mps") or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
