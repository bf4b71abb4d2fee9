"""Fine-tuning with the frozen trunk computed once beside a plain loop, and titles sorted by length beside unsorted."""

import copy
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from stages.bench.training import CPU, seconds
from stages.encoders.alignment import Adapter, info_nce
from stages.encoders.cached_trunk import Tuned
from stages.encoders.embedding import embed_titles
from stages.encoders.text import TextEncoder
from stages.encoders.tuning import Alignment, pair_batches, parameter_groups

EPOCHS = 10  # the paper's
ROUNDS = 3  # of embedding

Rates = tuple[float, float]  # learning rates of the last block and of the adapter
Loss = Callable[[np.ndarray], Tensor]  # pairs (B, 2) → scalar


def without_dropout(encoder: TextEncoder) -> TextEncoder:
    """A copy that computes the same in training, so that losses can be compared."""
    encoder = copy.deepcopy(encoder)
    for module in encoder.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return encoder


def fine_tuning(
    encoder: TextEncoder, titles: list[str], pairs: Tensor, batch_size: int, tau: float, rates: Rates
) -> dict[str, float]:
    """Seconds of EPOCHS epochs of t2t on the last block, ours and plain, on the same batches, and both last losses.

    Ours with the trunk of all titles, whatever the pairs: the more pairs, the larger its gain. pairs: (P, 2) items.
    """
    result = {}
    for name, prepared in (("cached", _cached), ("plain", _plain)):
        begin = time.perf_counter()
        torch.manual_seed(0)
        loss, optimizer = prepared(without_dropout(encoder), titles, tau, rates)
        for epoch in range(EPOCHS):
            blocks = pair_batches(pairs, batch_size, np.random.default_rng(epoch))
            losses = [_step(optimizer, loss(block)) for (block,) in blocks]
        result[f"sft_{name}_seconds"] = time.perf_counter() - begin
        result[f"sft_{name}_loss"] = sum(losses) / len(losses)
    return result


def _cached(encoder: TextEncoder, titles: list[str], tau: float, rates: Rates) -> tuple[Loss, torch.optim.Optimizer]:
    """As the sft stage does it."""
    tuned = Tuned(encoder, encoder.prepare(titles), "last_block", fresh=False)
    tuned.cache_trunk(batch_size=64)
    widths = {"text": encoder.model.config.hidden_size}
    model = Alignment({"text": tuned}, widths, ("t2t",), tau, torch.ones(len(titles), dtype=torch.bool))
    model.train()
    return lambda block: model.loss(block)["loss"], torch.optim.Adam(parameter_groups(model, *rates), fused=True)


def _plain(encoder: TextEncoder, titles: list[str], tau: float, rates: Rates) -> tuple[Loss, torch.optim.Optimizer]:
    """As most scripts do it: both titles of a pair through the whole encoder, padded to the longest of the batch."""
    inputs, adapter = encoder.prepare(titles), Adapter(encoder.model.config.hidden_size)
    encoder.model.set_attn_implementation("sdpa")  # transformers' own default
    encoder.model.requires_grad_(False)
    encoder.last_block().requires_grad_(True)

    def loss(block: np.ndarray) -> Tensor:
        anchors, positives = torch.from_numpy(block).unbind(dim=1)
        left, right = (adapter(_vectors(encoder, inputs, items - 1)) for items in (anchors, positives))
        return info_nce(left, right, anchors, positives, tau)

    groups = [
        {"params": encoder.last_block().parameters(), "lr": rates[0]},
        {"params": adapter.parameters(), "lr": rates[1]},
    ]
    return loss, torch.optim.Adam(groups, fused=True)


def _vectors(encoder: TextEncoder, inputs: dict[str, Tensor], rows: Tensor) -> Tensor:
    """Vectors of some titles in one batch, padded to its longest. rows: (n,) → (n, width)."""
    chosen = encoder.trimmed({name: tensor[rows] for name, tensor in inputs.items()})
    return encoder.pool(encoder.states(chosen), chosen)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def embedding(encoder: TextEncoder, titles: list[str], batch_size: int) -> dict[str, float]:
    """Seconds of all titles in batches by length, and in their own order; either padded to the longest of its batch.

    The medians of ROUNDS in turn. Besides, how many tokens either order makes of the titles with the padding: all that
    sorting can save.
    """

    @torch.inference_mode()
    def unsorted() -> None:
        encoder.model.eval()
        inputs = encoder.prepare(titles)
        for block in torch.arange(len(titles)).split(batch_size):
            _vectors(encoder, inputs, block)

    calls = {"sorted": lambda: embed_titles(encoder, titles, batch_size, CPU), "unsorted": unsorted}
    rounds = [{name: seconds(call) for name, call in calls.items()} for _ in range(ROUNDS)]
    lengths = encoder.lengths(encoder.prepare(titles))
    return {f"embed_{name}_seconds": statistics.median(times[name] for times in rounds) for name in calls} | {
        "embed_sorted_tokens": padded_tokens(lengths.sort().values, batch_size),
        "embed_unsorted_tokens": padded_tokens(lengths, batch_size),
    }


def padded_tokens(lengths: Tensor, batch_size: int) -> int:
    """Tokens of all batches, each as wide as its longest title. lengths: (titles,), in the order of batches."""
    return sum(len(block) * int(block.max()) for block in lengths.split(batch_size))
