"""Where what training reads again and again stands: on the card, when there is room."""

import torch

SHARE = 4  # of a card's free memory, at most one part in so many


def residence(size: int, device: torch.device) -> torch.device:
    """The device itself for data of `size` bytes, or main memory when a card has too little free for it."""
    if device.type == "cuda" and size > torch.cuda.mem_get_info(device)[0] // SHARE:
        return torch.device("cpu")
    return device
