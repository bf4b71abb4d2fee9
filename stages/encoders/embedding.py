"""All items through an encoder: titles of like length together, the batches shared among the processes."""

from collections.abc import Iterable

import torch
from torch import Tensor
from tqdm import tqdm

from stages.encoders.image import DecodedCovers, ImageEncoder
from stages.encoders.text import TextEncoder
from stages.parallel import distributed
from stages.parallel.device import reduced_precision


@torch.inference_mode()
def embed_titles(encoder: TextEncoder, titles: list[str], batch_size: int, device: torch.device) -> Tensor:
    """Vectors of titles, those of like length together. → (titles, width)."""
    encoder.model.to(device).eval()
    everything = encoder.prepare(titles)
    order = encoder.lengths(everything).argsort(stable=True)
    parts = []
    for block in _own_blocks(order, batch_size, "titles"):
        inputs = encoder.trimmed({name: tensor[block] for name, tensor in everything.items()})
        inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
        with reduced_precision(device):
            parts.append((block, encoder.pool(encoder.states(inputs), inputs)))
    return distributed.gather_matrix(parts, len(titles))


@torch.inference_mode()
def embed_covers(encoder: ImageEncoder, covers: DecodedCovers, batch_size: int, device: torch.device) -> Tensor:
    """Vectors of covers; an item without a readable one gets the mean of the others. → (items, width)."""
    encoder.model.to(device).eval()
    parts = []
    for block in _own_blocks(covers.readable.nonzero().flatten(), batch_size, "covers"):
        inputs = {"pixels": covers.pixels[block].to(device)}
        with reduced_precision(device):
            parts.append((block, encoder.pool(encoder.states(inputs), inputs)))
    everything = distributed.gather_matrix(parts, len(covers.readable))
    everything[~covers.readable] = everything[covers.readable].mean(dim=0)
    return everything


def _own_blocks(items: Tensor, batch_size: int, name: str) -> Iterable[Tensor]:
    """This process's batches of items, with a progress bar in the first one."""
    blocks = items.split(batch_size)[distributed.rank() :: distributed.world_size()]
    return tqdm(blocks, desc=name, unit="batch", disable=None if distributed.rank() == 0 else True)
