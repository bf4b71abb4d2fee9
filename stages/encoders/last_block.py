"""A model's last block, and what the model computes after it, found by running the model once on one item."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stages.encoders.content_encoder import ContentEncoder, Inputs
from stages.errors import InputError

SMALLEST_SHARE = 0.04  # lists of modules with a smaller share of the largest one's weights are no lists of blocks


@dataclass(frozen=True)
class LastBlock:
    """The part of a model that `sft.train=last_block` trains, with what the model runs after it."""

    block: nn.Module
    before_pooling: list[nn.Module]  # that the encoder's `states` runs after the block, in order
    in_pooling: list[nn.Module]  # that the encoder's `pool` runs
    weights: list[nn.Parameter]  # of all of these, those that the vector depends on


def find_last_block(encoder: ContentEncoder, inputs: Inputs) -> LastBlock:
    """Run the encoder on `inputs` (one item) and see which modules it calls in which order.

    Raises InputError when the model has no list of blocks, or calls its last block more than once (ALBERT).
    """
    encoder.model.eval()
    calls = _Calls([*encoder.model.modules(), *encoder.head.modules()])
    with torch.no_grad(), calls:
        states = encoder.states(inputs)
        calls.events.append("states")
        encoder.pool(states, inputs)
    end = calls.events.index("states")
    block = _last_block(encoder.model, calls.events[:end])
    position = calls.events.index(("end", block)) if calls.events.count(("end", block)) == 1 else None
    if position is None:
        raise InputError(
            f"{type(encoder.model).__name__} runs its last block several times per item: set sft.train=all"
        )
    before = {id(parameter) for event in calls.events[:position] for parameter in _own_parameters(event)}
    before -= {id(parameter) for parameter in block.parameters()}
    before_pooling, in_pooling = _outermost(calls.events[position + 1 : end]), _outermost(calls.events[end + 1 :])
    trained = [block, *before_pooling, *in_pooling]
    weights = {id(p): p for module in trained for p in module.parameters() if id(p) not in before}
    return LastBlock(block, before_pooling, in_pooling, _reached(encoder, inputs, list(weights.values())))


Event = tuple[str, nn.Module] | str


class _Calls:
    """While active, records the begin and the end of every call of these modules."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self.modules, self.events = modules, list[Event]()

    def __enter__(self) -> None:
        self.hooks = []
        for module in self.modules:
            self.hooks.append(module.register_forward_pre_hook(lambda m, args: self.events.append(("begin", m))))
            self.hooks.append(module.register_forward_hook(lambda m, args, output: self.events.append(("end", m))))

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()


def _last_block(model: nn.Module, events: list[Event]) -> nn.Module:
    """The child that is called last, of the model's last list of blocks; without such a list, of the model itself."""
    if isinstance(stage := getattr(model, "layer4", None), nn.Sequential):
        return stage  # ResNet's stages are four attributes, not a list
    last_end = {id(event[1]): place for place, event in enumerate(events) if not isinstance(event, str)}
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    lists = [[child for child in children if id(child) in last_end and _has_matrix(child)] for children in lists]
    if not any(lists):
        lists = [[child] for child in model.children() if id(child) in last_end and _has_matrix(child)]
    if not any(lists):
        raise InputError(f"{type(model).__name__} has no blocks: set sft.train=all")
    sizes = [(sum(p.numel() for child in children for p in child.parameters()), children) for children in lists]
    largest = max(size for size, _ in sizes)
    blocks = [children[-1] for size, children in sizes if children and size >= SMALLEST_SHARE * largest]
    return max(blocks, key=lambda block: last_end[id(block)])  # the outermost of nested ones ends last


def _has_matrix(module: nn.Module) -> bool:
    """Whether it is more than a norm or an activation."""
    return any(parameter.ndim > 1 for parameter in module.parameters())


def _own_parameters(event: Event) -> list[nn.Parameter]:
    return [] if isinstance(event, str) else list(event[1].parameters(recurse=False))


def _outermost(events: list[Event]) -> list[nn.Module]:
    """The modules whose calls begin among these events and not within another such call, in order."""
    found: list[nn.Module] = []
    depth = 0
    for event in events:
        if isinstance(event, str):
            continue
        kind, module = event
        if kind == "begin":
            if depth == 0:
                found.append(module)
            depth += 1
        elif depth:  # at depth 0 it is the end of a module that the block is part of
            depth -= 1
    return found


def _reached(encoder: ContentEncoder, inputs: Inputs, weights: list[nn.Parameter]) -> list[nn.Parameter]:
    """The weights on which the vector depends."""
    needed = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    with torch.enable_grad():
        vectors: Tensor = encoder.pool(encoder.states(inputs), inputs)
        gradients = torch.autograd.grad(vectors.sum(), weights, allow_unused=True)
    for weight, need in zip(weights, needed, strict=True):
        weight.requires_grad_(need)
    return [weight for weight, gradient in zip(weights, gradients, strict=True) if gradient is not None]
