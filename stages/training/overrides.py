"""Params with other values, as `dvc exp run -S KEY=VALUE` sets them, and which of them decide a trial's result."""

import hashlib
import json
from typing import Any

from pydantic import ValidationError

from stages.errors import InputError
from stages.models.systems import SYSTEMS
from stages.params import Params
from stages.provenance import Ids
from stages.training.baselines import dropout_of
from stages.training.search_space import DIM, SPACES, Space

Overrides = dict[str, Any]  # {key as `-S` writes it: value}

# The params of the stages in dvc.yaml, without `device`.
STAGE_PARAMS = {
    "pretrain": ("dim", "smoothing", "seed", "precision", "sequence", "loss", "monitor", "pretrain"),
    "posttrain": (
        "modalities", "alpha", "content_weight", "rank", "tau", "lam", "dim", "smoothing", "seed", "precision",
        "without", "frozen", "sequence", "loss", "monitor", "posttrain",
    ),
    "baseline": (
        "modalities", "dim", "seed", "precision", "sequence", "loss", "monitor", "pretrain.dropout", "baseline",
    ),
}  # fmt: skip
TRAINED_BY = {"sicsrec": ("pretrain", "posttrain"), "id_encoder": ("pretrain",)}  # the others: by `baseline`


def _parent(content: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The dict that has a dotted key's value, and its key there."""
    *sections, last = key.split(".")
    for name in sections:
        content = content[name]
    return content, last


def _get(content: dict[str, Any], key: str) -> Any:
    parent, last = _parent(content, key)
    return parent[last]


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    parent, last = _parent(content, key)
    parent[last] = value


def with_overrides(params: Params, overrides: Overrides) -> Params:
    """params with other values. Raises InputError when they do not go together."""
    content = params.model_dump()
    for key, value in overrides.items():
        _set(content, key, value)
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise InputError(f"params.yaml: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error


def current_values(system: str, params: Params) -> Overrides:
    """The searched params as params.yaml has them; in place of an empty `baseline.dropout` the system's own."""
    content = params.model_dump()
    if system in SYSTEMS:
        content["baseline"]["dropout"] = dropout_of(system, params)
    return {key: _get(content, key) for dimension in SPACES[system] for key in dimension.keys}


def space_of(system: str, params: Params) -> Space:
    """What is searched for the system, wide enough for the current params; widths that the heads divide."""
    current, heads = current_values(system, params), params.sequence.heads
    spaces = [DIM.multiples_of(heads) if dimension == DIM else dimension for dimension in SPACES[system]]
    return tuple(dimension.including(current[dimension.keys[0]]) for dimension in spaces)


def search_id(system: str, params: Params, inputs: Ids) -> str:
    """A hash of what all trials share: the space, the other params, and the ids of the artifacts that are read."""
    content, space = params.model_dump(mode="json"), space_of(system, params)
    for key in current_values(system, params):
        _set(content, key, "searched")
    shared = [_get(content, key) for stage in TRAINED_BY.get(system, ("baseline",)) for key in STAGE_PARAMS[stage]]
    return hashlib.sha256(json.dumps([shared, repr(space), inputs], sort_keys=True).encode()).hexdigest()[:16]
