"""Joint fine-tuning of the encoders (paper eq. 4)."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from stages.encoders.alignment import SHARED, Adapter, alignment_metrics, info_nce
from stages.encoders.cached_trunk import Tuned, even_blocks
from stages.parallel import distributed
from stages.parallel.placement import to_device

TASK_MODALITIES = {"t2t": ("text", "text"), "i2i": ("image", "image"), "t2i": ("text", "image")}


class Alignment(nn.Module):
    """The encoders of all modalities, their adapters and the loss of eq. 4."""

    def __init__(
        self,
        tuned: dict[str, Tuned],
        widths: dict[str, int],
        tasks: tuple[str, ...],
        tau: float,
        usable: dict[str, Bool[Tensor, " N"]],
    ) -> None:
        """widths: of each encoder's vectors. usable: by modality, the items that have content of it.

        An item without content of a modality is left out of the tasks of that modality.
        """
        super().__init__()
        self.tuned = nn.ModuleDict(tuned)
        self.adapters = nn.ModuleDict({name: Adapter(width) for name, width in widths.items()})
        self.tasks = tuple(task for task in tasks if set(TASK_MODALITIES[task]) <= set(tuned))
        self.tau, self.usable = tau, usable
        self.items = len(next(iter(usable.values())))

    def vectors(self, modality: str, items: Int[Tensor, " n"]) -> Float[Tensor, "n shared"]:
        """Unit vectors in the shared space. Each rank encodes the items that are its own."""
        tuned, rank_of = cast(Tuned, self.tuned[modality]), items % distributed.world_size()
        own = items[rank_of == distributed.rank()]
        encoded = self.adapters[modality](tuned(own)) if len(own) else torch.zeros(0, SHARED, device=tuned.device)
        return distributed.all_gather_rows(encoded)[to_device(rank_of.argsort(stable=True).argsort(), tuned.device)]

    def anchors_and_positives(
        self, task: str, pairs: Int[Tensor, "P 2"], items: Int[Tensor, " n"]
    ) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
        """The items of a task's anchors and of their positives.

        A task within one modality takes both from `pairs`; one across two modalities pairs each of `items` with itself.
        """
        left, right = TASK_MODALITIES[task]
        if left == right:
            chosen = pairs[self.usable[left][pairs - 1].all(dim=1)]
            return chosen[:, 0], chosen[:, 1]
        both = items[(self.usable[left] & self.usable[right])[items - 1]]
        return both, both

    def loss(self, pairs: Int[np.ndarray, "B 2"]) -> dict[str, Tensor]:
        """Eq. 4 as `loss`, and its terms by task. pairs: target and similar item, in main memory.

        A task of which the batch has fewer than two rows has no negatives and is left out.
        """
        device, batch = next(self.parameters()).device, torch.from_numpy(pairs)
        items = batch.unique()
        row_of = torch.zeros(self.items + 1, dtype=torch.long)
        row_of[items] = torch.arange(len(items))
        read = {modality for task in self.tasks for modality in TASK_MODALITIES[task]}
        encoded = {name: self.vectors(name, items) for name in self.tuned if name in read}
        terms = {}
        for task in self.tasks:
            left, right = TASK_MODALITIES[task]
            anchors, positives = self.anchors_and_positives(task, batch, items)
            if len(anchors) < 2:
                continue
            from_row, to_row, anchors, positives = (
                to_device(numbers, device) for numbers in (row_of[anchors], row_of[positives], anchors, positives)
            )
            terms[task] = info_nce(encoded[left][from_row], encoded[right][to_row], anchors, positives, self.tau)
        if not terms:  # zero, of a weight that trains: a pretrained encoder's first one does not
            return {"loss": next(p for p in self.parameters() if p.requires_grad).sum() * 0}
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    @torch.no_grad()
    def encode_all(self, batch_size: int) -> dict[str, Tensor]:
        """Unit vectors of all items in the shared space: {modality: (N, shared)}."""
        self.eval()
        return {
            name: torch.cat([self.vectors(name, block + 1).cpu() for block in even_blocks(self.items, batch_size)])
            for name in self.tuned
        }

    def measure(self, encoded: dict[str, Tensor], pairs: Int[Tensor, "P 2"]) -> dict[str, dict[str, float]]:
        """`alignment_metrics` of every task that the modalities allow. encoded: of `encode_all`."""
        metrics = {}
        for task, (left, right) in TASK_MODALITIES.items():
            if not {left, right} <= set(self.tuned):
                continue
            anchors, positives = self.anchors_and_positives(task, pairs, torch.arange(1, self.items + 1))
            if len(anchors):
                metrics[task] = alignment_metrics(
                    encoded[left][anchors - 1], encoded[right][positives - 1], anchors, positives, encoded[right]
                )
        return metrics


def pair_batches(
    pairs: Int[Tensor, "P 2"], batch_size: int, rng: np.random.Generator
) -> Iterator[tuple[Int[np.ndarray, "B 2"]]]:
    """One epoch of pairs in random order."""
    for block in torch.from_numpy(rng.permutation(len(pairs))).split(batch_size):
        yield (pairs[block].numpy(),)


def parameter_groups(model: Alignment, *, learning_rate: float, new_learning_rate: float) -> list[dict[str, Any]]:
    """Adam's groups: pretrained weights at one learning rate, weights that start from the seed at the other.

    Those are the adapters and the tiny encoders.
    """
    tuned = [cast(Tuned, part) for part in model.tuned.values()]
    pretrained = [p for part in tuned if not part.fresh for p in part.parameters() if p.requires_grad]
    known = {id(parameter) for parameter in pretrained}
    new = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups = [{"params": pretrained, "lr": learning_rate}, {"params": new, "lr": new_learning_rate}]
    return [group for group in groups if group["params"]]
