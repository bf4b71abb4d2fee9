"""Controls of Table 8: content vectors that say nothing of their item. A gain that they leave is not from content."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def control_vectors(vectors: dict[str, Float[Tensor, "N _"]], content: str, seed: int) -> dict[str, Tensor]:
    """The vectors that items get in place of their own. content: own, shuffled or random.

    shuffled: permuted at random, alike in all modalities. random: of random direction, with their own norms.
    """
    generator = torch.Generator().manual_seed(seed)
    if content == "own":
        return vectors
    if content == "shuffled":
        order = torch.randperm(len(next(iter(vectors.values()))), generator=generator)
        return {name: matrix[order] for name, matrix in vectors.items()}
    return {
        name: F.normalize(torch.randn(matrix.shape, generator=generator), dim=-1) * matrix.norm(dim=-1, keepdim=True)
        for name, matrix in vectors.items()
    }
