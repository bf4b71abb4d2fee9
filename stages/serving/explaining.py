"""Why an item is recommended: the share of each stream in its score, and the items of the history that count."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import polars as pl
import torch
from torch import Tensor, nn

from stages.models.layers import Attention, Block, TransformerEncoder
from stages.models.sicsrec import Sicsrec
from stages.serving.trained import Trained

LEANS_ON = 3  # items of the history that are named


@torch.inference_mode()
def explain(trained: Trained, history: list[int], rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` (of one user's recommendations: item, score, …) with the columns id, content, both, rest, leans_on.

    The projection of eq. 15 is linear, so a score is the sum of what it takes from the ID encoder (id), the content
    encoder (content), the decoder, which mixes the two (both), and its bias (rest); null: the model has no such
    part. leans_on: raw ids of the LEANS_ON items that the last position attends to most, the same for all rows: mean
    over the heads of the last layers of all streams. history: item numbers, oldest first.
    """
    model, config = trained.model, trained.model.config
    latest = torch.tensor([history[-config.max_length :]], device=trained.device)
    with recorded_inputs([model.projection, *last_attentions(model)]) as inputs:
        model.hidden(latest)
    streams = inputs[model.projection][0][0, -1].split(config.dim)
    weights = model.projection.weight.split(config.dim, dim=1)
    parts = [weight @ stream for weight, stream in zip(weights, streams, strict=True)] + [model.projection.bias]
    number = dict(trained.items.select("raw_id", "item").iter_rows())
    items = torch.tensor([number[raw_id] for raw_id in rows["item"]], device=trained.device)
    shares = trained.matrix[items - 1] @ (torch.stack(parts) / torch.stack(parts).sum(dim=0).norm()).T
    present = {"id": config.id_stream, "content": config.content_stream, "both": config.decoder, "rest": True}
    columns = iter(shares.cpu().numpy().T)
    attention = torch.stack([attention_of_last(layer, *inputs[layer]) for layer in last_attentions(model)]).mean(dim=0)
    most = attention.topk(min(LEANS_ON, len(attention))).indices.tolist()
    leans_on = [trained.items["raw_id"][int(latest[0, place]) - 1] for place in most]
    return rows.with_columns(
        **{name: pl.Series(next(columns)) if there else pl.lit(None, pl.Float32) for name, there in present.items()},
        leans_on=pl.Series([leans_on] * rows.height),
    )


def last_attentions(model: Sicsrec) -> list[Attention]:
    """The attention of the last layer of each stream and of the decoder."""
    stacks: list[nn.ModuleList] = []
    if model.config.id_stream:
        stacks.append(model.id_encoder.blocks)
    if model.config.content_stream:
        stacks += [cast(TransformerEncoder, encoder).blocks for encoder in model.content_encoder.values()]
    if model.config.decoder:
        stacks.append(model.decoder)
    return [cast(Block, stack[-1]).attention for stack in stacks]


@contextmanager
def recorded_inputs(modules: list[nn.Module]) -> Iterator[dict[nn.Module, tuple[Tensor, ...]]]:
    """The inputs of the latest call of each module, while the block runs."""
    inputs: dict[nn.Module, tuple[Tensor, ...]] = {}
    hooks = [module.register_forward_pre_hook(inputs.__setitem__) for module in modules]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


def attention_of_last(layer: Attention, query: Tensor, memory: Tensor, *_: object) -> Tensor:
    """Weights by which the last position reads each position: (L,), mean over heads. query, memory: (1, L, D)."""
    q = layer.query(query[0, -1]).unflatten(-1, (layer.heads, -1))  # (heads, D / heads)
    k = layer.key(memory[0]).unflatten(-1, (layer.heads, -1))  # (L, heads, D / heads)
    scores = torch.einsum("hd,lhd->hl", q, k) * q.shape[-1] ** -0.5
    return scores.softmax(dim=-1).mean(dim=0)
