"""Fine-tuning with the frozen trunk computed once beside a plain loop, and titles sorted by length beside unsorted."""

import copy
import time

import torch
from torch import Tensor, nn

from stages.bench.training import seconds
from stages.encoders.alignment import Adapter, info_nce
from stages.encoders.embedding import embed_titles
from stages.encoders.text import TextEncoder
from stages.encoders.tuning import Alignment, Tuned, parameter_groups

CPU = torch.device("cpu")
EPOCHS = 10  # the paper's; the plain loop's are all alike, so that PLAIN_EPOCHS are measured
PLAIN_EPOCHS = 1


def without_dropout(encoder: TextEncoder) -> TextEncoder:
    """A copy that computes the same in training, so that losses can be compared."""
    encoder = copy.deepcopy(encoder)
    for module in encoder.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return encoder


def fine_tuning(
    encoder: TextEncoder, titles: list[str], pairs: Tensor, batch_size: int, tau: float, rates: tuple[float, float]
) -> dict[str, float]:
    """Seconds of EPOCHS epochs of t2t on the last block, ours and plain, and each one's loss after PLAIN_EPOCHS.

    pairs: (P, 2) items. rates: learning rates of the last block and of the adapter.
    """
    blocks = pairs.split(batch_size)
    ours, plain = without_dropout(encoder), without_dropout(encoder)
    result = {}

    begin = time.perf_counter()
    tuned = Tuned(ours, ours.prepare(titles), "last_block", fresh=False)
    tuned.cache_trunk(batch_size)
    torch.manual_seed(0)
    width = ours.model.config.hidden_size
    model = Alignment({"text": tuned}, {"text": width}, ("t2t",), tau, torch.ones(len(titles), dtype=torch.bool))
    optimizer = torch.optim.Adam(parameter_groups(model, *rates), fused=True)
    for epoch in range(1, EPOCHS + 1):
        model.train()
        losses = [_step(optimizer, model.loss(block)["loss"]) for block in blocks]
        if epoch == PLAIN_EPOCHS:
            result["sft_cached_loss"] = sum(losses) / len(losses)
    result["sft_cached_seconds"] = time.perf_counter() - begin

    begin = time.perf_counter()
    torch.manual_seed(0)
    adapter, inputs = Adapter(width), plain.prepare(titles)
    plain.model.requires_grad_(False)
    plain.last_block().requires_grad_(True)
    groups = [
        {"params": plain.last_block().parameters(), "lr": rates[0]},
        {"params": adapter.parameters(), "lr": rates[1]},
    ]
    optimizer = torch.optim.Adam(groups, fused=True)
    for _ in range(PLAIN_EPOCHS):
        losses = []
        for block in blocks:
            left, right = (adapter(_plain_vectors(plain, inputs, block[:, side])) for side in (0, 1))
            losses.append(_step(optimizer, info_nce(left, right, block[:, 0], block[:, 1], tau)))
    result["sft_plain_loss"] = sum(losses) / len(losses)
    result["sft_plain_seconds"] = (time.perf_counter() - begin) / PLAIN_EPOCHS * EPOCHS
    return result


def _plain_vectors(encoder: TextEncoder, inputs: dict[str, Tensor], items: Tensor) -> Tensor:
    """Every title through the whole encoder, padded to the longest of all, as most scripts do."""
    chosen = {name: tensor[items - 1] for name, tensor in inputs.items()}
    return encoder.pool(encoder.states(chosen), chosen)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def embedding(encoder: TextEncoder, titles: list[str], batch_size: int) -> dict[str, float]:
    """Seconds of all titles in batches by length, and in their own order, padded to the longest of all."""

    @torch.inference_mode()
    def unsorted() -> None:
        encoder.model.eval()
        inputs = encoder.prepare(titles)
        for block in torch.arange(len(titles)).split(batch_size):
            chosen = {name: tensor[block] for name, tensor in inputs.items()}
            encoder.pool(encoder.states(chosen), chosen)

    return {
        "embed_sorted_seconds": seconds(lambda: embed_titles(encoder, titles, batch_size, CPU)),
        "embed_unsorted_seconds": seconds(unsorted),
    }
