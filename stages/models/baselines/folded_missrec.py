"""MISSRec made ready to serve, for the comparison of speed; a file of its own, as MISSRec needs scikit-learn."""

import copy

import torch
from torch import nn

from stages.models.baselines.missrec import MissRec


@torch.no_grad()
def folded_missrec(model: MissRec) -> MissRec:
    """A copy whose content vectors are adapted already."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for name, adaptor in model.adaptors.items():
        setattr(model, f"content_{name}", adaptor(getattr(model, f"content_{name}")))
        model.adaptors[name] = nn.Identity()
    return model
