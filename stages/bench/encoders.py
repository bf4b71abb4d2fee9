"""Fine-tuning with a cached trunk against a plain loop, and embedding of titles sorted by length against unsorted."""

import copy
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stages.bench.training import CPU, seconds
from stages.encoders.alignment import Adapter, info_nce
from stages.encoders.cached_trunk import Tuned
from stages.encoders.content_encoder import ItemInputs
from stages.encoders.embedding import embed_items
from stages.encoders.last_block import find_last_block
from stages.encoders.text import TextEncoder
from stages.encoders.tuning import Alignment, pair_batches, parameter_groups

EPOCHS = 10  # as in the paper
ROUNDS = 3  # of embedding; the median is reported

Rates = tuple[float, float]  # learning rates of the last block and of the adapter
Loss = Callable[[np.ndarray], Tensor]  # pairs (B, 2) → scalar


def without_dropout(encoder: TextEncoder) -> TextEncoder:
    """A copy without dropout, so that the losses of both loops can be compared."""
    encoder = copy.deepcopy(encoder)
    for module in encoder.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return encoder


def fine_tuning(
    encoder: TextEncoder, titles: list[str], pairs: Tensor, *, batch_size: int, tau: float, rates: Rates
) -> dict[str, float]:
    """Seconds of EPOCHS epochs of t2t on the last block, by both loops on the same batches, and their last losses.

    The cached loop runs the trunk on all titles, also on those in no pair: more pairs, more gain. pairs: (P, 2) items.
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
    """As the stage `sft` does it."""
    tuned = Tuned(encoder, encoder.prepare(titles), "last_block", fresh=False)
    tuned.cache_trunk(batch_size=64)
    widths = {"text": _width(encoder)}
    model = Alignment({"text": tuned}, widths, ("t2t",), tau, {"text": torch.ones(len(titles), dtype=torch.bool)})
    model.train()
    groups = parameter_groups(model, learning_rate=rates[0], new_learning_rate=rates[1])
    return lambda block: model.loss(block)["loss"], torch.optim.Adam(groups, fused=True)


def _plain(encoder: TextEncoder, titles: list[str], tau: float, rates: Rates) -> tuple[Loss, torch.optim.Optimizer]:
    """As most scripts do it: both titles of a pair pass the whole encoder, padded to the longest title of the batch."""
    inputs, adapter = encoder.prepare(titles), Adapter(_width(encoder))
    assert isinstance(encoder.model, PreTrainedModel)
    encoder.model.set_attn_implementation("sdpa")  # transformers' own default
    encoder.model.requires_grad_(False)
    one = encoder.trimmed({name: tensor[:1] for name, tensor in inputs.items()})
    last_block = find_last_block(encoder, one).block.requires_grad_(True)

    def loss(block: np.ndarray) -> Tensor:
        anchors, positives = torch.from_numpy(block).unbind(dim=1)
        left, right = (adapter(_vectors(encoder, inputs, items - 1)) for items in (anchors, positives))
        return info_nce(left, right, anchors, positives, tau)

    groups = [
        {"params": last_block.parameters(), "lr": rates[0]},
        {"params": adapter.parameters(), "lr": rates[1]},
    ]
    return loss, torch.optim.Adam(groups, fused=True)


def _width(encoder: TextEncoder) -> int:
    assert isinstance(encoder.model, PreTrainedModel)
    return int(encoder.model.config.hidden_size)


def _vectors(encoder: TextEncoder, inputs: dict[str, Tensor], rows: Tensor) -> Tensor:
    """Vectors of these titles as one batch, padded to the longest of them. rows: (n,) → (n, width)."""
    chosen = encoder.trimmed({name: tensor[rows] for name, tensor in inputs.items()})
    return encoder.pool(encoder.states(chosen), chosen)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def embedding(encoder: TextEncoder, titles: list[str], batch_size: int) -> dict[str, float]:
    """Seconds to embed all titles, batched by length and in file order, each batch padded to its longest title.

    Medians of ROUNDS. Also the number of tokens with padding in both orders: their ratio bounds the gain of sorting.
    """

    @torch.inference_mode()
    def unsorted() -> None:
        encoder.model.eval()
        inputs = encoder.prepare(titles)
        for block in torch.arange(len(titles)).split(batch_size):
            _vectors(encoder, inputs, block)

    def by_length() -> None:
        usable = torch.ones(len(titles), dtype=torch.bool)
        embed_items(encoder, ItemInputs(encoder.prepare(titles), usable), batch_size, CPU)

    calls = {"sorted": by_length, "unsorted": unsorted}
    rounds = [{name: seconds(call) for name, call in calls.items()} for _ in range(ROUNDS)]
    lengths = encoder.lengths(encoder.prepare(titles))
    return {f"embed_{name}_seconds": statistics.median(times[name] for times in rounds) for name in calls} | {
        "embed_sorted_tokens": padded_tokens(lengths.sort().values, batch_size),
        "embed_unsorted_tokens": padded_tokens(lengths, batch_size),
    }


def padded_tokens(lengths: Tensor, batch_size: int) -> int:
    """Number of tokens in all batches with padding. lengths: (titles,), in the order of the batches."""
    return sum(len(block) * int(block.max()) for block in lengths.split(batch_size))
