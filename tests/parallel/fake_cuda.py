"""A fake GPU for machines without one: its tensors report another device and compute on the CPU.

What CUDA refuses is refused: operations on tensors of both devices, a NumPy view of a tensor on the GPU, operations
without a deterministic CUDA kernel. Within `forbid_sync`, also operations for which the host waits for the GPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("meta")
CPU = torch.device("cpu")
aten = torch.ops.aten
# index's indices may be on the CPU, and copies go from one device to the other
BOTH_DEVICES = {aten._to_copy, aten.copy_, aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
NOT_DETERMINISTIC = {  # torch.use_deterministic_algorithms: "will throw"
    aten._adaptive_avg_pool2d_backward, aten.adaptive_max_pool2d_backward, aten.upsample_bilinear2d_backward,
    aten.upsample_bicubic2d_backward, aten.reflection_pad2d_backward, aten.put_, aten.histc, aten.scatter_reduce,
    aten.grid_sampler_2d_backward, aten.nll_loss2d_forward, aten.median,
}  # fmt: skip
SYNCHRONISING = {  # the host waits for the GPU to learn the result's size or value
    aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.nonzero, aten.masked_select, aten._unique2,
    aten.unique_consecutive, aten.unique_dim, aten.repeat_interleave,
}  # fmt: skip
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
_sync_is_forbidden = False


@contextmanager
def forbid_sync() -> Iterator[None]:
    """Within, an operation for which the host waits for the GPU raises RuntimeError."""
    global _sync_is_forbidden
    _sync_is_forbidden = True
    try:
        yield
    finally:
        _sync_is_forbidden = False


def _synchronise(what: object) -> None:
    if _sync_is_forbidden:
        raise RuntimeError(f"{what} waits for the GPU")


class FakeCudaTensor(Tensor):
    """A tensor on the fake GPU. inner: its values, on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "FakeCudaTensor":
        made = Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=GPU
        )
        made.inner = inner
        return made

    def tolist(self) -> Any:
        _synchronise("tolist")
        return self.inner.tolist()

    def __bool__(self) -> bool:
        _synchronise("bool")
        return bool(self.inner)

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert a tensor on the GPU to numpy: use Tensor.cpu() first")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


class Operations(TorchDispatchMode):
    """Operations that create tensors on the fake GPU, such as `torch.zeros(…, device=…)`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


class Literals(TorchFunctionMode):
    """`torch.tensor(…, device=…)`, which is not dispatched, and pinned memory, which needs a real GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.pin_memory:
            args[0].in_pinned_memory = True
            return args[0]
        kwargs = dict(kwargs or {})
        device = kwargs.pop("device", None) if func is torch.tensor else None
        made = func(*args, **kwargs)
        return made if device is None else made.to(device)


@contextmanager
def fake_cuda() -> Iterator[torch.device]:
    """Within, `device="meta"` is the fake GPU."""
    with Operations(), Literals():
        yield GPU


@torch.inference_mode(False)  # so that a view of a parameter stays a view
@torch.no_grad()
def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU. The result is on the GPU if it was asked for there or the arguments are there."""
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    on_gpu = [isinstance(tensor, FakeCudaTensor) for tensor in tensors]
    kind = func.overloadpacket
    if kind is aten._has_compatible_shallow_copy_type:
        return False  # so that Module.to makes new parameters
    if any(on_gpu):
        elsewhere = [t for t in tensors if not isinstance(t, FakeCudaTensor) and t.dim()]
        if elsewhere and kind not in BOTH_DEVICES:
            raise RuntimeError(f"{func}: expected all tensors to be on the same device")
        if kind in NOT_DETERMINISTIC:
            raise RuntimeError(f"{func} does not have a deterministic CUDA implementation")
        by_mask = kind in INDEXING and any(t is not None and t.dtype == torch.bool for t in args[1])
        if kind in SYNCHRONISING or by_mask:  # indexing by a mask is a `nonzero`
            _synchronise(func)
    asked = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
    gpu = asked[0] == GPU if asked else any(on_gpu)
    if kind in (aten.copy_, aten.index, aten.index_put_, aten._index_put_impl_):
        gpu = isinstance(args[0], FakeCudaTensor)
    pinned = kwargs.get("non_blocking", False) and all(hasattr(tensor, "in_pinned_memory") for tensor in tensors)
    if kind in (aten._to_copy, aten.copy_) and len({*on_gpu, gpu}) > 1 and not pinned:
        _synchronise(f"{func} between main memory and the GPU")
    inner = func(*_unwrapped(args), **_unwrapped(kwargs))
    if torch.Tag.inplace_view in func.tags:  # the shape of the tensor itself changes
        with torch._C._DisableTorchDispatch():
            func(*args, **kwargs)
    if func._schema.is_mutable and func._schema.name.endswith("_"):
        return args[0]
    return tree_map(lambda t: FakeCudaTensor(t) if gpu and isinstance(t, Tensor) else t, inner)


def _unwrapped(tree: Any) -> Any:
    tree = tree_map(lambda leaf: leaf.inner if isinstance(leaf, FakeCudaTensor) else leaf, tree)
    return tree_map(lambda leaf: CPU if isinstance(leaf, torch.device) else leaf, tree)
