"""Where titles and covers lie beside each other in the space that fine-tuning aligns, in two dimensions."""

import numpy as np
import polars as pl
import torch
from sklearn.decomposition import PCA
from torch import Tensor

DECIMALS = 4  # finer than a picture shows, coarser than what LAPACK's kernels for different processors disagree on


def modality_gap(text: Tensor, image: Tensor) -> float:
    """Distance between two modalities' mean vectors (Liang et al. 2022). (n, d), (m, d) unit → 0…2."""
    return float(torch.dist(text.double().mean(dim=0), image.double().mean(dim=0)))


def projected(vectors: dict[str, Tensor], when: str) -> pl.DataFrame:
    """Both modalities' vectors on their first two principal components, to DECIMALS. → when, modality, x, y."""
    stacked = np.concatenate([table.numpy() for table in vectors.values()]).astype(np.float64)
    points = PCA(2, svd_solver="full").fit_transform(stacked).round(DECIMALS)
    names = [name for name, table in vectors.items() for _ in range(len(table))]
    return pl.DataFrame({"when": when, "modality": names, "x": points[:, 0], "y": points[:, 1]})
