"""An encoder of which only the last block trains; the input of that block is computed once per item and cached."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten
from tqdm import tqdm

from stages.encoders.content_encoder import ContentEncoder, Inputs
from stages.encoders.last_block import find_last_block
from stages.files import is_main_process
from stages.parallel import distributed
from stages.parallel.device import reduced_precision, uses_bfloat16
from stages.parallel.placement import choose_placement, to_device

LENGTH_CLASSES = 8  # groups of titles of similar length in the cache
TRIED = 3  # items on which cached and whole encoder are compared
TOLERANCE, TOLERANCE_BFLOAT16 = 1e-3, 5e-2  # of the largest component of the vectors
# what modules raise that are called with arguments they are not made for
NOT_APPLICABLE = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def even_blocks(count: int, size: int) -> list[Int[Tensor, " n"]]:
    """0…count − 1 in blocks of at most `size`, as even as possible."""
    return list(torch.arange(count).tensor_split(max(1, -(-count // size))))


@dataclass(frozen=True)
class LastBlockInput:
    """The arguments of the last block for a group of items of similar length."""

    inputs: Inputs  # of the model, for pooling
    values: list[Any]  # the leaves of (args, kwargs)
    by_item: list[bool]  # which of them have a row per item
    spec: TreeSpec

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(value.nbytes for value in [*self.inputs.values(), *self.values] if isinstance(value, Tensor))

    def on(self, device: torch.device) -> "LastBlockInput":
        """A copy on the device."""
        return LastBlockInput(_on(self.inputs, device), _on(self.values, device), self.by_item, self.spec)

    def rows(self, rows: Int[Tensor, " n"], device: torch.device) -> tuple[Inputs, list[Any], dict[str, Any]]:
        """The model's inputs and the block's args and kwargs for some items of the group, on the device."""
        chosen = [
            value[to_device(rows, value.device)] if by_item else value
            for value, by_item in zip(self.values, self.by_item, strict=True)
        ]
        args, kwargs = tree_unflatten(_on(chosen, device), self.spec)
        return _on(_rows(self.inputs, rows), device), list(args), kwargs


class Tuned(nn.Module):
    """One modality's encoder while it is fine-tuned: item numbers in, vectors out.

    Whole until `cache_trunk`; from then on only the last block and what comes after it are computed, if that gives
    the vectors of the whole encoder.
    """

    def __init__(self, encoder: ContentEncoder, inputs: Inputs, train: str, fresh: bool) -> None:
        """inputs: of all items. train: last_block or all. fresh: its weights start from the seed; all train."""
        super().__init__()
        self.encoder, self.inputs, self.fresh = encoder, inputs, fresh
        self.model, self.head = encoder.model, encoder.head
        self.cache: list[LastBlockInput] = []
        self.whole = fresh or train == "all"
        self.last = None if self.whole else find_last_block(encoder, encoder.trimmed(_rows(inputs, torch.arange(1))))
        if self.last:
            self.replayed = self.last.before_pooling
            self.requires_grad_(False)
            for weight in self.last.weights:
                weight.requires_grad_(True)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def cache_trunk(self, batch_size: int) -> None:
        """Run everything before the last block once per item and store the arguments of the last block.

        Items are grouped by length, so that neither this pass nor training computes much padding. Each rank stores
        its own items, in GPU memory if they fit. If the cached encoder does not give the vectors of the whole one,
        nothing is cached, the whole model runs in training, and a line says so.
        """
        self.eval()
        lengths = self.encoder.lengths(self.inputs)
        items = torch.arange(1, len(lengths) + 1)
        own = items[items % distributed.world_size() == distributed.rank()] - 1
        if not len(own):
            return
        order = own[lengths[own].argsort(stable=True)]
        tried = order[torch.linspace(0, len(order) - 1, TRIED).long()].unique()
        if not self._find_replayed(tried):
            self._say_not_cached()
            return
        expected = self._vectors(tried + 1, reduced=True)
        group_of, row_of, cache = torch.zeros_like(lengths, dtype=torch.long), torch.zeros_like(items), []
        groups = order.tensor_split(min(LENGTH_CLASSES, len(lengths[own].unique())))
        for number, rows in enumerate(tqdm(groups, desc="frozen trunk", unit="length")):
            group_of[rows], row_of[rows] = number, torch.arange(len(rows))
            cache.append(self._run_trunk(self.encoder.trimmed(_rows(self.inputs, rows)), batch_size, reduced=True))
        place = choose_placement(sum(group.size for group in cache), self.device)
        self.group_of, self.row_of, self.cache = group_of, row_of, [group.on(place) for group in cache]
        if _agree(self._vectors(tried + 1, reduced=True), expected, self._tolerance()):
            self.inputs = {}  # each group has its own
        else:
            self.cache = []
            self._say_not_cached()

    def _find_replayed(self, rows: Int[Tensor, " n"]) -> bool:
        """Find which of the modules after the block have to be run to get the whole encoder's vectors of some items.

        The most that agree, so that what does nothing here (dropout) is run as well.
        """
        assert self.last is not None
        expected = self._vectors(rows + 1, reduced=False)
        try:
            group = self._run_trunk(self.encoder.trimmed(_rows(self.inputs, rows)), len(rows), reduced=False)
        except NOT_APPLICABLE:
            return False
        for count in range(len(self.last.before_pooling), -1, -1):
            self.replayed = self.last.before_pooling[:count]
            try:
                vectors = self._from_cache(group, torch.arange(len(rows)))
            except NOT_APPLICABLE:
                continue
            if _agree(vectors, expected, TOLERANCE):
                return True
        return False

    def _say_not_cached(self) -> None:
        if is_main_process():
            name = type(self.model).__name__
            print(f"{name}: cannot be run from its last block on; fine-tuning runs the whole model in every batch")

    def _tolerance(self) -> float:
        return TOLERANCE_BFLOAT16 if uses_bfloat16(self.device) else TOLERANCE

    def _vectors(self, items: Int[Tensor, " n"], reduced: bool) -> Float[Tensor, "n D"]:
        with reduced_precision(self.device) if reduced else nullcontext():
            return self(items)

    def _run_trunk(self, inputs: Inputs, batch_size: int, reduced: bool) -> LastBlockInput:
        assert self.last is not None
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        hook = self.last.block.register_forward_pre_hook(
            lambda module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
        )
        blocks = even_blocks(len(next(iter(inputs.values()))), batch_size)
        try:
            for block in blocks:
                with reduced_precision(self.device) if reduced else nullcontext():
                    self.encoder.states(_on(_rows(inputs, block), self.device))
        finally:
            hook.remove()
        flat = [tree_flatten(call) for call in calls]
        spec = flat[0][1]
        if any(other != spec for _, other in flat):
            raise ValueError("the block's arguments differ in structure between batches")
        sizes = [len(block) for block in blocks]
        joined = [_joined([leaves[i] for leaves, _ in flat], sizes) for i in range(spec.num_leaves)]
        return LastBlockInput(inputs, [value for value, _ in joined], [by_item for _, by_item in joined], spec)

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
        assert self.last is not None
        inputs, args, kwargs = group.rows(rows, self.device)
        states = self.encoder.run_last_block(self.last.block, args, kwargs)
        states = states[0] if isinstance(states, tuple) else states
        for module in self.replayed:
            states = module(states)
        return self.encoder.pool(states, inputs)

    def train(self, mode: bool = True) -> "Tuned":
        """Dropout only in what is trained: the rest computes what was cached."""
        super().train(mode and self.whole)
        if mode and self.last:
            for part in (self.last.block, *self.last.before_pooling, *self.last.in_pooling):
                part.train()
        return self


def _agree(vectors: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether two tables of vectors are the same up to `tolerance` of the largest component."""
    if vectors.shape != expected.shape:
        return False
    return bool((vectors.float() - expected.float()).abs().max() <= tolerance * expected.float().abs().max())


def _joined(values: list[Any], sizes: list[int]) -> tuple[Any, bool]:
    """One argument of all batches, and whether it has a row per item: their tensors as one, or the value itself.

    sizes: items of each batch.
    """
    example = next((value for value in values if isinstance(value, Tensor)), None)
    if example is None:
        return values[0], False
    values = [_mask_without_padding(example, n) if v is None else v for v, n in zip(values, sizes, strict=True)]
    if all(v.ndim and v.shape[0] == n for v, n in zip(values, sizes, strict=True)):
        return torch.cat([value.cpu() for value in values]), True
    return example, False


def _mask_without_padding(mask: Tensor, rows: int) -> Tensor:
    """An attention mask like `mask` that hides nothing, for a batch without padding, where transformers passes None."""
    shape = (rows, *mask.shape[1:])
    return mask.new_ones(shape) if mask.dtype == torch.bool else mask.new_zeros(shape)


def _rows(inputs: Inputs, rows: Int[Tensor, " n"]) -> Inputs:
    return {name: tensor[to_device(rows, tensor.device)] for name, tensor in inputs.items()}


def _on(values: Any, device: torch.device) -> Any:
    """A dict or list with its tensors on the device."""
    if isinstance(values, dict):
        return {name: _on([value], device)[0] for name, value in values.items()}
    return [to_device(value, device) if isinstance(value, Tensor) else value for value in values]
