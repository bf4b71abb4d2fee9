"""What the other systems of Table 4 are built from."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.models.recommender import Recommender


@dataclass(frozen=True)
class Material:
    """Sizes, packed training histories and the items' content vectors."""

    items: int  # N
    dim: int  # D
    layers: int
    heads: int
    dropout: float
    max_length: int
    seed: int
    values: np.ndarray  # (interactions,) in 1…N
    offsets: np.ndarray  # (users + 1,)
    inputs: Callable[[], np.ndarray]  # (users, L): the latest items before each user's last training item, 0 = padding
    vectors: dict[str, np.ndarray]  # {modality: (N, width)}
    validate: Callable[[Recommender], float]  # a model's validation metric, the one that `monitor` names

    @property
    def widths(self) -> dict[str, int]:
        """Length of each modality's vectors."""
        return {name: matrix.shape[1] for name, matrix in self.vectors.items()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """`vectors` as tensors that share their memory."""
        return {name: torch.from_numpy(matrix) for name, matrix in self.vectors.items()}
