"""Joint fine-tuning of the encoders (eq. 4)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.encoders.alignment import SHARED, Adapter, alignment_metrics, info_nce
from stages.encoders.cached_trunk import Tuned, blocks_of
from stages.parallel import distributed
from stages.parallel.placement import to_device

TASK_MODALITIES = {"t2t": ("text", "text"), "i2i": ("image", "image"), "t2i": ("text", "image")}


class Alignment(nn.Module):
    """Both encoders, their adapters and eq. 4."""

    def __init__(
        self, tuned: dict[str, Tuned], widths: dict[str, int], tasks: tuple[str, ...], tau: float, usable: Tensor
    ) -> None:
        """usable: (N,) bool, items with a readable cover; the others stay out of i2i and t2i."""
        super().__init__()
        self.tuned = nn.ModuleDict(tuned)
        self.adapters = nn.ModuleDict({name: Adapter(width) for name, width in widths.items()})
        self.tasks = tuple(task for task in tasks if set(TASK_MODALITIES[task]) <= set(tuned))
        self.tau, self.usable = tau, usable

    def vectors(self, modality: str, items: Tensor) -> Tensor:
        """Unit vectors in the shared space; each process encodes the items that are its own. items (n,) → (n, 64)."""
        tuned, whose = self.tuned[modality], items % distributed.world_size()
        own = items[whose == distributed.rank()]
        encoded = self.adapters[modality](tuned(own)) if len(own) else torch.zeros(0, SHARED, device=tuned.device)
        return distributed.all_gather_rows(encoded)[to_device(whose.argsort(stable=True).argsort(), tuned.device)]

    def partners(self, pairs: Tensor, items: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Each task's anchors and their positives: of pairs (P, 2), and each of items (n,) with itself for t2i."""
        seen, shown = pairs[self.usable[pairs - 1].all(dim=1)], items[self.usable[items - 1]]
        return {"t2t": (pairs[:, 0], pairs[:, 1]), "i2i": (seen[:, 0], seen[:, 1]), "t2i": (shown, shown)}

    def loss(self, pairs: np.ndarray) -> dict[str, Tensor]:
        """Eq. 4 and its terms. pairs (B, 2): target and similar item, in main memory, where items are looked up."""
        device, pairs = next(self.parameters()).device, torch.from_numpy(pairs)
        distinct = pairs.unique()
        place = torch.zeros(len(self.usable) + 1, dtype=torch.long)
        place[distinct] = torch.arange(len(distinct))
        encoded = {
            name: self.vectors(name, distinct)
            for name in self.tuned
            if any(name in TASK_MODALITIES[t] for t in self.tasks)
        }
        rows = self.partners(pairs, distinct)
        terms = {}
        for task in self.tasks:
            (left, right), (anchors, positives) = TASK_MODALITIES[task], rows[task]
            if len(anchors) < 2:  # no negatives: nothing to learn from
                continue
            from_row, to_row, anchors, positives = (
                to_device(numbers, device) for numbers in (place[anchors], place[positives], anchors, positives)
            )
            terms[task] = info_nce(encoded[left][from_row], encoded[right][to_row], anchors, positives, self.tau)
        total = torch.stack(list(terms.values())).sum() if terms else next(self.parameters()).sum() * 0
        return {"loss": total, **terms}

    @torch.no_grad()
    def everything(self, batch_size: int) -> dict[str, Tensor]:
        """Unit vectors of all items in the shared space. → {modality: (N, 64)}."""
        self.eval()
        return {
            name: torch.cat([self.vectors(name, block + 1).cpu() for block in blocks_of(len(self.usable), batch_size)])
            for name in self.tuned
        }

    def measure(self, everything: dict[str, Tensor], pairs: Tensor) -> dict[str, dict[str, float]]:
        """Alignment of every task over all pairs (t2t, i2i) or items (t2i): see `alignment_metrics`."""
        rows = self.partners(pairs, torch.arange(1, len(self.usable) + 1))
        return {
            task: alignment_metrics(
                everything[left][rows[task][0] - 1],
                everything[right][rows[task][1] - 1],
                *rows[task],
                everything[right],
            )
            for task, (left, right) in TASK_MODALITIES.items()
            if {left, right} <= set(self.tuned) and len(rows[task][0])
        }


def pair_batches(pairs: Tensor, batch_size: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray]]:
    """One epoch of pairs (P, 2) in random order."""
    for block in torch.from_numpy(rng.permutation(len(pairs))).split(batch_size):
        yield (pairs[block].numpy(),)


def parameter_groups(model: Alignment, learning_rate: float, new_learning_rate: float) -> list[dict[str, Any]]:
    """Pretrained weights at one learning rate; adapters and fresh encoders, which start from seed, at the other."""
    pretrained = [p for t in model.tuned.values() if not t.fresh for p in t.parameters() if p.requires_grad]
    known = {id(parameter) for parameter in pretrained}
    new = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups = [{"params": pretrained, "lr": learning_rate}, {"params": new, "lr": new_learning_rate}]
    return [group for group in groups if group["params"]]
