"""One modality's encoder as it is fine-tuned, what its frozen trunk makes of an item computed once."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from stages.encoders.image import ImageEncoder
from stages.encoders.text import TextEncoder
from stages.parallel import distributed
from stages.parallel.device import reduced_precision
from stages.parallel.placement import choose_placement, to_device

LENGTH_CLASSES = 8  # groups of titles of like length in the cached trunk

Encoder = TextEncoder | ImageEncoder


def blocks_of(count: int, size: int) -> list[Tensor]:
    """0…count − 1 in blocks of at most `size`, as even as possible."""
    return list(torch.arange(count).tensor_split(max(1, -(-count // size))))


@dataclass(frozen=True)
class Trunk:
    """What the last block is called with for items whose inputs are of like length."""

    inputs: dict[str, Tensor]
    args: list[Any]
    kwargs: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes."""
        values = [*self.inputs.values(), *self.args, *self.kwargs.values()]
        return sum(value.nbytes for value in values if isinstance(value, Tensor))

    def moved(self, device: torch.device) -> "Trunk":
        args = [value.to(device) if isinstance(value, Tensor) else value for value in self.args]
        return Trunk(_moved(self.inputs, device), args, _moved(self.kwargs, device))


class Tuned(nn.Module):
    """One modality's encoder as the losses see it: items in, vectors out, only the last block computed if possible."""

    def __init__(self, encoder: Encoder, inputs: dict[str, Tensor], train: str, fresh: bool) -> None:
        """inputs: {name: (N, …)} of all items. train: last_block or all; a `fresh` encoder trains wholly."""
        super().__init__()
        self.encoder, self.inputs, self.fresh = encoder, inputs, fresh
        self.model = encoder.model
        self.trunks: list[Trunk] = []
        self.whole = fresh or train == "all"
        if not self.whole:
            self.model.requires_grad_(False)
            for part in self._tail():
                part.requires_grad_(True)

    def _tail(self) -> list[nn.Module]:
        """The last block and what stands behind it."""
        names = ("norm", "head", "fc", "fc_norm", "head_drop") if isinstance(self.encoder, ImageEncoder) else ()
        tail = [self.encoder.last_block()] + [getattr(self.model, name) for name in names if hasattr(self.model, name)]
        norm = getattr(getattr(self.model, "encoder", None), "final_layer_norm", None)
        return tail if norm is None else [*tail, norm]

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def cache_trunk(self, batch_size: int) -> None:
        """Run everything before the last block once an item and keep what the block is called with.

        Items of like length stand together, so that neither pass spends its time on padding. Each process keeps the
        items that are its own, on its card if that has room.
        """
        self.model.eval()
        lengths = self.encoder.lengths(self.inputs)
        self.class_of, self.row_of = (torch.zeros(len(lengths), dtype=torch.long) for _ in range(2))
        items = torch.arange(1, len(lengths) + 1)
        own = items[items % distributed.world_size() == distributed.rank()] - 1
        order = own[lengths[own].argsort(stable=True)]
        classes = order.tensor_split(min(LENGTH_CLASSES, len(lengths[own].unique())))
        for number, part in enumerate(tqdm(classes, desc="frozen trunk", unit="length")):
            self.class_of[part], self.row_of[part] = number, torch.arange(len(part))
            self.trunks.append(self._run_trunk(self.encoder.trimmed(_rows(self.inputs, part)), batch_size))
        self.inputs = {}  # each class holds its own
        place = choose_placement(sum(trunk.size for trunk in self.trunks), self.device)
        self.trunks = [trunk.moved(place) for trunk in self.trunks]

    def _run_trunk(self, inputs: dict[str, Tensor], batch_size: int) -> Trunk:
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        hook = self.encoder.last_block().register_forward_pre_hook(
            lambda module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
        )
        blocks = blocks_of(len(next(iter(inputs.values()))), batch_size)
        for block in blocks:
            with reduced_precision(self.device):
                self.encoder.states(_moved(_rows(inputs, block), self.device))
        hook.remove()
        sizes = [len(block) for block in blocks]
        args = [_joined([call[0][i] for call in calls], sizes) for i in range(len(calls[0][0]))]
        kwargs = {name: _joined([call[1][name] for call in calls], sizes) for name in calls[0][1]}
        return Trunk(inputs, args, kwargs)

    def forward(self, items: Tensor) -> Tensor:
        """Vectors of items (n,) in 1…N → (n, width)."""
        if not self.trunks:
            inputs = _moved(self.encoder.trimmed(_rows(self.inputs, items - 1)), self.device)
            return self.encoder.pool(self.encoder.states(inputs), inputs)
        order = self.class_of[items - 1].argsort(stable=True)
        classes, counts = self.class_of[items - 1].unique(return_counts=True)
        rows = self.row_of[items - 1][order].split(counts.tolist())
        vectors = [self._from_trunk(self.trunks[c], r) for c, r in zip(classes.tolist(), rows, strict=True)]
        return torch.cat(vectors)[to_device(order.argsort(), self.device)]

    def _from_trunk(self, trunk: Trunk, rows: Tensor) -> Tensor:
        count = len(next(iter(trunk.inputs.values())))
        args = [_chosen(value, rows, count, self.device) for value in trunk.args]
        kwargs = {name: _chosen(value, rows, count, self.device) for name, value in trunk.kwargs.items()}
        states = self.encoder.run_last_block(args, kwargs)
        return self.encoder.pool(self.encoder.after_last_block(states), _moved(_rows(trunk.inputs, rows), self.device))

    def train(self, mode: bool = True) -> "Tuned":
        """Dropout only in what trains: the trunk stays as it was when it was cached."""
        super().train(mode and self.whole)
        if mode and not self.whole:
            for part in self._tail():
                part.train()
        return self


def _joined(values: list[Any], sizes: list[int]) -> Any:
    """Batches' tensors as one over all items, in main memory; what does not go by item is the same in every batch."""
    example = next((value for value in values if isinstance(value, Tensor)), None)
    if example is None:
        return values[0]
    values = [_hides_nothing(example, n) if v is None else v for v, n in zip(values, sizes, strict=True)]
    if all(v.ndim and v.shape[0] == n for v, n in zip(values, sizes, strict=True)):
        return torch.cat([value.cpu() for value in values])
    return example


def _hides_nothing(mask: Tensor, rows: int) -> Tensor:
    """A mask like `mask` for `rows` rows without padding, for which transformers passes None."""
    shape = (rows, *mask.shape[1:])
    return mask.new_ones(shape) if mask.dtype == torch.bool else mask.new_zeros(shape)


def _chosen(value: Any, rows: Tensor, count: int, device: torch.device) -> Any:
    if not isinstance(value, Tensor):
        return value
    return to_device(value[to_device(rows, value.device)] if value.ndim and value.shape[0] == count else value, device)


def _rows(inputs: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: tensor[to_device(rows, tensor.device)] for name, tensor in inputs.items()}


def _moved(values: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: to_device(value, device) if isinstance(value, Tensor) else value for name, value in values.items()}
