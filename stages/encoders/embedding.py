"""All items through an encoder: inputs of similar length in one batch, the batches distributed over the ranks."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from stages.encoders.content_encoder import ContentEncoder, ItemInputs
from stages.errors import InputError
from stages.parallel import distributed
from stages.parallel.device import reduced_precision

SAME = 1e-5  # of the largest component: differences below come from rounding


@torch.inference_mode()
def embed_items(
    encoder: ContentEncoder, inputs: ItemInputs, batch_size: int, device: torch.device, name: str = "items"
) -> Float[Tensor, "N D"]:
    """Vectors of all items; one that is not usable gets the mean of the others. name: of the progress bar."""
    for part in (encoder.model, encoder.head):
        part.to(device).eval()
    usable = inputs.usable.nonzero().flatten()
    lengths = encoder.lengths({argument: tensor[usable] for argument, tensor in inputs.values.items()})
    batches = usable[lengths.argsort(stable=True)].split(batch_size)
    own = batches[distributed.rank() :: distributed.world_size()]
    parts = []
    for rows in tqdm(own, desc=name, unit="batch", disable=None if distributed.rank() == 0 else True):
        batch = encoder.trimmed({argument: tensor[rows] for argument, tensor in inputs.values.items()})
        batch = {argument: tensor.to(device) for argument, tensor in batch.items()}
        with reduced_precision(device):
            parts.append((rows, encoder.pool(encoder.states(batch), batch)))
    vectors = distributed.gather_matrix(parts, len(inputs.usable))
    if not inputs.usable.all():
        vectors[~inputs.usable] = vectors[inputs.usable].mean(dim=0)
    return vectors


def refuse_useless_vectors(modality: str, vectors: Float[Tensor, "N D"], usable: Bool[Tensor, " N"]) -> None:
    """Raise InputError if vectors are not finite, have equal components, or are the same for all usable items."""
    mend = f"check {modality}_encoder and the items' content, or leave {modality} out of modalities"
    broken = ~vectors.isfinite().all(dim=1)
    if broken.any():
        first = int(broken.nonzero()[0]) + 1
        raise InputError(f"{modality}: {int(broken.sum())} vectors are not finite (first: item {first}): {mend}")
    own = vectors[usable]
    scale = SAME * own.abs().max()
    if vectors.shape[1] > 1 and (own.amax(dim=1) - own.amin(dim=1)).max() <= scale:
        raise InputError(f"{modality}: every vector is constant, all its components are equal: {mend}")
    if len(own) > 1 and (own.amax(dim=0) - own.amin(dim=0)).max() <= scale:
        raise InputError(f"{modality}: all {len(own)} items have the same vector: {mend}")
