"""Floating-point operations of training, and the rate of matrix products that the machine reaches."""

import numpy as np
import torch
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from stages.bench.training import CPU, Data
from stages.data.histories import training_batches, training_windows
from stages.models.sasrec import Sasrec
from stages.params import Params


def epoch_flops(model: Sasrec, params: Params, data: Data) -> int:
    """Floating-point operations of the matrix products of one epoch, forward and backward."""
    windows = training_windows(data.train, params.sequence.max_length)
    rng = np.random.default_rng(params.seed)
    model.train()
    with FlopCounterMode(display=False) as counter:
        for batch in training_batches(data.train, windows, params.pretrain.batch_positions, rng):
            model.loss(*batch)["loss"].backward()
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
