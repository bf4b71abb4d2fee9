"""A card that is not there: tensors that say they are elsewhere and compute on the CPU.

What a card would refuse is refused: an operation on tensors of both devices, a NumPy view of a tensor on the card, and
operations that have no deterministic kernel in CUDA. Within `never_waiting`, also what a host would wait for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CARD = torch.device("meta")
CPU = torch.device("cpu")
aten = torch.ops.aten
# index's indices may be on the CPU, and copies go from one device to another
BOTH_DEVICES = {aten._to_copy, aten.copy_, aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
NOT_DETERMINISTIC = {  # torch.use_deterministic_algorithms: "will throw"
    aten._adaptive_avg_pool2d_backward, aten.adaptive_max_pool2d_backward, aten.upsample_bilinear2d_backward,
    aten.upsample_bicubic2d_backward, aten.reflection_pad2d_backward, aten.put_, aten.histc, aten.scatter_reduce,
    aten.grid_sampler_2d_backward, aten.nll_loss2d_forward, aten.median,
}  # fmt: skip
WAITING = {  # their results' sizes, or Python's numbers, are known only when the card has done all before
    aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.nonzero, aten.masked_select, aten._unique2,
    aten.unique_consecutive, aten.unique_dim, aten.repeat_interleave,
}  # fmt: skip
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
_waiting_is_refused = False


@contextmanager
def never_waiting() -> Iterator[None]:
    """Inside, what makes a host wait for the card raises RuntimeError."""
    global _waiting_is_refused
    _waiting_is_refused = True
    try:
        yield
    finally:
        _waiting_is_refused = False


def _refuse_waiting(what: object) -> None:
    if _waiting_is_refused:
        raise RuntimeError(f"{what} waits for the card")


class OnCard(Tensor):
    """A tensor on the card; `inner` has its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnCard":
        made = Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=CARD
        )
        made.inner = inner
        return made

    def tolist(self) -> Any:
        _refuse_waiting("tolist")
        return self.inner.tolist()

    def __bool__(self) -> bool:
        _refuse_waiting("bool")
        return bool(self.inner)

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert a tensor on the card to numpy: use Tensor.cpu() first")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class Operations(TorchDispatchMode):
    """Those whose tensors are made on the card."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class Literals(TorchFunctionMode):
    """`torch.tensor(…, device=…)`, which no operation makes, and pinned memory, which only a card's machine has."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.pin_memory:
            args[0].in_pinned_memory = True
            return args[0]
        kwargs = dict(kwargs or {})
        device = kwargs.pop("device", None) if func is torch.tensor else None
        made = func(*args, **kwargs)
        return made if device is None else made.to(device)


@contextmanager
def pretend_card() -> Iterator[torch.device]:
    """Inside, `device="meta"` is the card."""
    with Operations(), Literals():
        yield CARD


@torch.inference_mode(False)  # a view of a parameter stays one
@torch.no_grad()
def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation, on the CPU; its result on the card when it was asked for there or its tensors are there."""
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    on_card = [isinstance(tensor, OnCard) for tensor in tensors]
    kind = func.overloadpacket
    if kind is aten._has_compatible_shallow_copy_type:
        return False  # a module that is moved gets new parameters
    if any(on_card):
        elsewhere = [t for t in tensors if not isinstance(t, OnCard) and t.dim()]
        if elsewhere and kind not in BOTH_DEVICES:
            raise RuntimeError(f"{func}: expected all tensors to be on the same device")
        if kind in NOT_DETERMINISTIC:
            raise RuntimeError(f"{func} does not have a deterministic implementation on a card")
        by_bools = kind in INDEXING and any(t is not None and t.dtype == torch.bool for t in args[1])
        if kind in WAITING or by_bools:  # an index of bools is a `nonzero`
            _refuse_waiting(func)
    asked = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
    card = asked[0] == CARD if asked else any(on_card)
    if kind in (aten.copy_, aten.index, aten.index_put_, aten._index_put_impl_):
        card = isinstance(args[0], OnCard)
    pinned = kwargs.get("non_blocking", False) and all(hasattr(tensor, "in_pinned_memory") for tensor in tensors)
    if kind in (aten._to_copy, aten.copy_) and len({*on_card, card}) > 1 and not pinned:
        _refuse_waiting(f"{func} between main memory and the card")
    inner = func(*_unwrapped(args), **_unwrapped(kwargs))
    if torch.Tag.inplace_view in func.tags:  # the shape of the tensor itself changes
        with torch._C._DisableTorchDispatch():
            func(*args, **kwargs)
    if func._schema.is_mutable and func._schema.name.endswith("_"):
        return args[0]
    return tree_map(lambda t: OnCard(t) if card and isinstance(t, Tensor) else t, inner)


def _unwrapped(tree: Any) -> Any:
    tree = tree_map(lambda leaf: leaf.inner if isinstance(leaf, OnCard) else leaf, tree)
    return tree_map(lambda leaf: CPU if isinstance(leaf, torch.device) else leaf, tree)
