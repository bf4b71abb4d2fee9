"""How far the vectors of two modalities lie apart in the shared space, as a number and in two dimensions."""

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

DECIMALS = 4  # finer than a picture shows, coarser than the differences between LAPACK's kernels for two processors


def modality_gap(one: Float[Tensor, "n D"], other: Float[Tensor, "m D"]) -> float:
    """Distance between the mean unit vectors of two modalities, 0…2. Source: Liang et al. 2022."""
    return float(torch.dist(one.double().mean(dim=0), other.double().mean(dim=0)))


def projected(vectors: dict[str, Tensor], when: str) -> pl.DataFrame:
    """All modalities' vectors on their first two principal components. vectors: {modality: (n, D)}.

    → columns when, modality, x, y; a row per vector; rounded to DECIMALS.
    """
    from sklearn.decomposition import PCA  # a second, which a stage that only loads this module need not wait for

    stacked = np.concatenate([table.numpy() for table in vectors.values()]).astype(np.float64)
    points = PCA(2, svd_solver="full").fit_transform(stacked).round(DECIMALS)
    names = [name for name, table in vectors.items() for _ in range(len(table))]
    return pl.DataFrame({"when": when, "modality": names, "x": points[:, 0], "y": points[:, 1]})
