"""A trained SICSRec made ready to serve: what does not depend on the request is computed beforehand. Same scores."""

from dataclasses import replace
from operator import attrgetter

import torch
from torch import nn

from stages.models.sicsrec import Sicsrec


@torch.no_grad()
def folded_sicsrec(model: Sicsrec) -> Sicsrec:
    """A copy whose content tables hold adapted vectors and whose ID encoder holds W₀ + B A (eqs. 6, 7, 20)."""
    folded = Sicsrec(replace(model.config, without=(*model.config.without, "lora")))
    for name, tensor in folded.state_dict().items():
        tensor.copy_(attrgetter(name)(model))  # of a weight with a low-rank update: their sum
    if model.config.widths:
        content = folded.content
        for name, adapter in content.adapters.items():
            content.tables[name] = nn.Embedding.from_pretrained(adapter(content.tables[name].weight))
            content.adapters[name] = nn.Identity()
    return folded.eval().requires_grad_(False)
