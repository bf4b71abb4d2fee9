"""Why an item is recommended: what its score is made of, and the items of the history that count."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import polars as pl
import torch
from torch import Tensor, nn

from stages.models.content import fuse_modalities
from stages.models.layers import Attention, Block, TransformerEncoder
from stages.models.sicsrec import Sicsrec
from stages.serving.trained import Trained

LEANS_ON = 3  # items of the history that are named
STATE_PARTS = ("id", "content", "both", "rest")  # ID encoder, content encoder, decoder, bias


@dataclass(frozen=True)
class Explanation:
    """rows: recommendations and what their scores are made of. history: the item numbers that the model read.

    weights: how much the last position attends to each of these, mean over the heads of the last layers of all streams.
    """

    rows: pl.DataFrame
    history: list[int]
    weights: list[float]


@torch.inference_mode()
def explain(trained: Trained, history: list[int], rows: pl.DataFrame) -> Explanation:
    """What the scores of `rows` (of one user's recommendations: item, score, …) are made of, in further columns.

    A score is a product of a state and an item's vector, and each of the two is a sum. By the state: the projection of
    eq. 15 is linear, so the score is what it takes from the ID encoder (id), the content encoder (content), the
    decoder, which mixes the two (both), and its bias (rest). By the item: see `item_parts`. null: the model has no such
    part. leans_on: raw ids of the LEANS_ON items with the largest weights, the same for all rows. history: item
    numbers, oldest first.
    """
    model, config = trained.model, trained.model.config
    latest = torch.tensor([history[-config.max_length :]], device=trained.device)
    with recorded_inputs([model.projection, *last_attentions(model)]) as inputs:
        model.hidden(latest)
    parts = state_parts(model, inputs[model.projection][0][0, -1])
    summands = torch.stack([*parts.values()])
    length = summands.sum(dim=0).norm()
    number = dict(trained.items.select("raw_id", "item").iter_rows())
    items = torch.tensor([number[raw_id] for raw_id in rows["item"]], dtype=torch.long, device=trained.device)
    shares = trained.matrix[items - 1] @ (summands / length).T
    columns = dict.fromkeys(STATE_PARTS) | dict(zip(parts, shares.T, strict=True))
    columns |= item_parts(trained, items, summands.sum(dim=0) / length)
    attention = torch.stack([attention_of_last(layer, *inputs[layer]) for layer in last_attentions(model)]).mean(dim=0)
    most = attention.topk(min(LEANS_ON, len(attention))).indices.tolist()
    leans_on = [trained.items["raw_id"][int(latest[0, place]) - 1] for place in most]
    rows = rows.with_columns(
        **{name: pl.lit(None, pl.Float32) if c is None else pl.Series(c.cpu().numpy()) for name, c in columns.items()},
        leans_on=pl.Series([leans_on] * rows.height),
    )
    return Explanation(rows, latest[0].tolist(), attention.tolist())


def state_parts(model: Sicsrec, streams: Tensor) -> dict[str, Tensor]:
    """What the projection of eq. 15 adds up, by the names in STATE_PARTS, without streams that the model lacks.

    streams: the projection's input, (streams · D,). → {name: (D,)}.
    """
    c = model.config
    present = {"id": c.id_stream, "content": c.content_stream, "both": c.decoder}
    names = [name for name, there in present.items() if there]
    weights = model.projection.weight.split(c.dim, dim=1)
    parts = zip(names, weights, streams.split(c.dim), strict=True)
    return {name: weight @ stream for name, weight, stream in parts} | {"rest": model.projection.bias}


def item_parts(trained: Trained, items: Tensor, state: Tensor) -> dict[str, Tensor | None]:
    """What the scores of items take from their ID vectors (item_id) and content vectors (item_content).

    An item that training never saw, new or not, has a vector that its content chose: item_id is 0. None: without
    `content_weight` items are ranked by one kind of vector; without `id` they have no ID vector.
    """
    model, weight = trained.model, trained.model.config.content_weight
    if weight is None:
        return {"item_id": None, "item_content": None}
    scores = trained.matrix[items - 1] @ state
    if not model.config.use_id:
        return {"item_id": None, "item_content": scores}
    seen = torch.from_numpy((trained.items["count"] > 0).to_numpy().copy()).to(items.device)[items - 1]
    of_id, of_content = torch.zeros_like(scores), scores.clone()
    of_id[seen] = (1 - weight) * (model.candidates(items[seen]) @ state)
    of_content[seen] = weight * (fuse_modalities(model.content(items[seen])) @ state)
    return {"item_id": of_id, "item_content": of_content}


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
