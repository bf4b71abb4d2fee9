"""Floating-point operations of training, and the rate of matrix products that the machine reaches."""

from collections.abc import Iterable

import torch
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from stages.bench.training import CPU
from stages.data.histories import Batch
from stages.models.sasrec import Sasrec
from stages.models.sicsrec import Sicsrec


def epoch_flops(model: Sasrec | Sicsrec, batches: Iterable[Batch], device: torch.device = CPU) -> int:
    """Floating-point operations of the matrix products of one epoch, forward and backward."""
    model.to(device)
    model.train()
    with FlopCounterMode(display=False) as counter:
        for batch in batches:
            model.loss(*(part.to(device) for part in batch))["loss"].backward()
    return counter.get_total_flops()


def matmul_rate(
    *, rows: int, dim: int, columns: tuple[int, ...], device: torch.device = CPU, dtype: torch.dtype = torch.float32
) -> float:
    """Floating-point operations per second of (rows, dim) @ (dim, n), the best of all n in `columns`."""
    rates = []
    for n in columns:
        left, right = (torch.randn(shape, device=device, dtype=dtype) for shape in ((rows, dim), (dim, n)))
        timer = Timer("left @ right", globals={"left": left, "right": right}, num_threads=torch.get_num_threads())
        rates.append(2 * rows * dim * n / timer.blocked_autorange(min_run_time=1.0).median)
    return max(rates)
