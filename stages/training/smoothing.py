"""Targets smoothed by content, from the file that `neighbours` wrote."""

from pathlib import Path

import torch

from stages.files import read_parquet
from stages.models.smoothing import Smoothing

NEIGHBOURS = Path("artifacts/neighbours.parquet")


def smoothing_inputs(share: float) -> list[Path]:
    """The files that smoothing with this share reads: none without smoothing."""
    return [NEIGHBOURS] if share else []


def read_smoothing(share: float) -> Smoothing | None:
    """Smoothing with this share of each target, None where it is 0."""
    if not share:
        return None
    frame = read_parquet(NEIGHBOURS)
    items, weights = (frame[name].list.to_array(len(frame[name][0])).to_numpy() for name in ("items", "weights"))
    return Smoothing(share, torch.from_numpy(items.copy()), torch.from_numpy(weights.copy()))
