"""An encoder of which only the last block trains; the input of that block is computed once per item and cached."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from stages.encoders.content_encoder import ContentEncoder, Inputs
from stages.parallel import distributed
from stages.parallel.device import reduced_precision
from stages.parallel.placement import choose_placement, to_device

LENGTH_CLASSES = 8  # groups of titles of similar length in the cache


def even_blocks(count: int, size: int) -> list[Int[Tensor, " n"]]:
    """0…count − 1 in blocks of at most `size`, as even as possible."""
    return list(torch.arange(count).tensor_split(max(1, -(-count // size))))


@dataclass(frozen=True)
class LastBlockInput:
    """The arguments of the last block for a group of items of similar length."""

    inputs: Inputs  # of the model, for pooling
    args: list[Any]  # tensors with a row per item, or what is the same for all items
    kwargs: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes."""
        values = [*self.inputs.values(), *self.args, *self.kwargs.values()]
        return sum(value.nbytes for value in values if isinstance(value, Tensor))

    def on(self, device: torch.device) -> "LastBlockInput":
        """A copy on the device."""
        args = [value.to(device) if isinstance(value, Tensor) else value for value in self.args]
        return LastBlockInput(_on(self.inputs, device), args, _on(self.kwargs, device))


class Tuned(nn.Module):
    """One modality's encoder while it is fine-tuned: item numbers in, vectors out.

    Whole until `cache_trunk`; from then on only the last block and what comes after it are computed.
    """

    def __init__(self, encoder: ContentEncoder, inputs: Inputs, train: str, fresh: bool) -> None:
        """inputs: of all items. train: last_block or all. fresh: its weights start from the seed; all train."""
        super().__init__()
        self.encoder, self.inputs, self.fresh = encoder, inputs, fresh
        self.model = encoder.model
        self.cache: list[LastBlockInput] = []
        self.whole = fresh or train == "all"
        if not self.whole:
            self.model.requires_grad_(False)
            for part in self._trained():
                part.requires_grad_(True)

    def _trained(self) -> list[nn.Module]:
        """The last block and the modules after it."""
        return [self.encoder.last_block(), *self.encoder.modules_after()]

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def cache_trunk(self, batch_size: int) -> None:
        """Run everything before the last block once per item and store the arguments of the last block.

        Items are grouped by length, so that neither this pass nor training computes much padding. Each rank stores
        its own items, in GPU memory if they fit.
        """
        self.model.eval()
        lengths = self.encoder.lengths(self.inputs)
        self.group_of, self.row_of = (torch.zeros(len(lengths), dtype=torch.long) for _ in range(2))
        items = torch.arange(1, len(lengths) + 1)
        own = items[items % distributed.world_size() == distributed.rank()] - 1
        order = own[lengths[own].argsort(stable=True)]
        groups = order.tensor_split(min(LENGTH_CLASSES, len(lengths[own].unique())))
        for number, rows in enumerate(tqdm(groups, desc="frozen trunk", unit="length")):
            self.group_of[rows], self.row_of[rows] = number, torch.arange(len(rows))
            self.cache.append(self._run_trunk(self.encoder.trimmed(_rows(self.inputs, rows)), batch_size))
        self.inputs = {}  # each group has its own
        place = choose_placement(sum(group.size for group in self.cache), self.device)
        self.cache = [group.on(place) for group in self.cache]

    def _run_trunk(self, inputs: Inputs, batch_size: int) -> LastBlockInput:
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        hook = self.encoder.last_block().register_forward_pre_hook(
            lambda module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
        )
        blocks = even_blocks(len(next(iter(inputs.values()))), batch_size)
        for block in blocks:
            with reduced_precision(self.device):
                self.encoder.states(_on(_rows(inputs, block), self.device))
        hook.remove()
        sizes = [len(block) for block in blocks]
        args = [_joined([call[0][i] for call in calls], sizes) for i in range(len(calls[0][0]))]
        kwargs = {name: _joined([call[1][name] for call in calls], sizes) for name in calls[0][1]}
        return LastBlockInput(inputs, args, kwargs)

    def forward(self, items: Int[Tensor, " n"]) -> Float[Tensor, "n D"]:
        """Vectors of items, numbered 1…N."""
        if not self.cache:
            inputs = _on(self.encoder.trimmed(_rows(self.inputs, items - 1)), self.device)
            return self.encoder.pool(self.encoder.states(inputs), inputs)
        order = self.group_of[items - 1].argsort(stable=True)
        groups, counts = self.group_of[items - 1].unique(return_counts=True)
        rows = self.row_of[items - 1][order].split(counts.tolist())
        vectors = [self._from_cache(self.cache[g], r) for g, r in zip(groups.tolist(), rows, strict=True)]
        return torch.cat(vectors)[to_device(order.argsort(), self.device)]

    def _from_cache(self, group: LastBlockInput, rows: Int[Tensor, " n"]) -> Float[Tensor, "n D"]:
        count = len(next(iter(group.inputs.values())))
        args = [_chosen(value, rows, count, self.device) for value in group.args]
        kwargs = {name: _chosen(value, rows, count, self.device) for name, value in group.kwargs.items()}
        states = self.encoder.after_last_block(self.encoder.run_last_block(args, kwargs))
        return self.encoder.pool(states, _on(_rows(group.inputs, rows), self.device))

    def train(self, mode: bool = True) -> "Tuned":
        """Dropout only in what is trained: the rest computes what was cached."""
        super().train(mode and self.whole)
        if mode and not self.whole:
            for part in self._trained():
                part.train()
        return self


def _joined(values: list[Any], sizes: list[int]) -> Any:
    """One argument of all batches: their tensors as one in main memory, or the value itself if it has no row per item.

    sizes: items of each batch.
    """
    example = next((value for value in values if isinstance(value, Tensor)), None)
    if example is None:
        return values[0]
    values = [_mask_without_padding(example, n) if v is None else v for v, n in zip(values, sizes, strict=True)]
    if all(v.ndim and v.shape[0] == n for v, n in zip(values, sizes, strict=True)):
        return torch.cat([value.cpu() for value in values])
    return example


def _mask_without_padding(mask: Tensor, rows: int) -> Tensor:
    """An attention mask like `mask` that hides nothing, for a batch without padding, where transformers passes None."""
    shape = (rows, *mask.shape[1:])
    return mask.new_ones(shape) if mask.dtype == torch.bool else mask.new_zeros(shape)


def _chosen(value: Any, rows: Int[Tensor, " n"], count: int, device: torch.device) -> Any:
    """The rows of a tensor that has a row for each of `count` items; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    return to_device(value[to_device(rows, value.device)] if value.ndim and value.shape[0] == count else value, device)


def _rows(inputs: Inputs, rows: Int[Tensor, " n"]) -> Inputs:
    return {name: tensor[to_device(rows, tensor.device)] for name, tensor in inputs.items()}


def _on(values: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: to_device(value, device) if isinstance(value, Tensor) else value for name, value in values.items()}
