"""What a folder of sentence-transformers says of pooling: modules.json and the folders that it names."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import cached_file

from stages.errors import InputError

MODULES = "modules.json"
POOLING = {"cls": "cls", "mean": "mean", "max": "max", "lasttoken": "last"}  # their name: ours
ACTIVATIONS = {"Identity": nn.Identity, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU}


@dataclass(frozen=True)
class SentenceModules:
    """The modules after the transformer."""

    pooling: str
    head: nn.Sequential = field(default_factory=nn.Sequential)  # Dense and Normalize modules
    transformer: str = ""  # folder of the transformer, within that of modules.json


class Dense(nn.Module):
    """A linear layer with an activation."""

    def __init__(self, linear: nn.Linear, activation: str) -> None:
        super().__init__()
        self.linear, self.activation, self.name = linear, ACTIVATIONS[activation](), activation

    def forward(self, vectors: Float[Tensor, "n width"]) -> Float[Tensor, "n D"]:
        return self.activation(self.linear(vectors))


class Normalize(nn.Module):
    """Vectors to unit length."""

    def forward(self, vectors: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        return F.normalize(vectors, dim=-1)


def read_sentence_modules(place: str) -> SentenceModules | None:
    """The modules of a folder or a hub name; None where sentence-transformers did not save it.

    Raises InputError for a module or a pooling that is not implemented here, or without its files.
    """
    modules = _read(place, MODULES)
    if modules is None:
        return None
    found = SentenceModules("mean")  # what sentence-transformers takes where no module says
    for module in modules:
        kind, path = module["type"].rsplit(".", 1)[-1], module["path"]
        if kind == "Transformer":
            found = SentenceModules(found.pooling, found.head, path)
        elif kind == "Pooling":
            found = SentenceModules(_pooling(_config(place, path), place), found.head, found.transformer)
        elif kind == "Dense":
            found.head.append(_read_dense(place, path, _config(place, path)))
        elif kind == "Normalize":
            found.head.append(Normalize())
        elif kind != "Dropout":
            raise InputError(
                f"text_encoder: {place}/{MODULES} has a module {kind}, which is unknown: set encoders.pooling"
            )
    return found


def write_sentence_modules(folder: Path, pooling: str, width: int, head: nn.Module) -> None:
    """Write the modules so that `read_sentence_modules` and sentence-transformers read them."""
    parts: list[tuple[str, str]] = [("Transformer", ""), ("Pooling", "1_Pooling")]
    names = {ours: theirs for theirs, ours in POOLING.items()}
    modes = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "lasttoken": "lasttoken"}
    config = {f"pooling_mode_{mode}": names[pooling] == name for name, mode in modes.items()}
    _write(folder / "1_Pooling/config.json", {"word_embedding_dimension": width, **config})
    for number, module in enumerate(head.children(), 2):
        parts.append((type(module).__name__, f"{number}_{type(module).__name__}"))
        (folder / parts[-1][1]).mkdir()
        if isinstance(module, Dense):
            linear = module.linear
            _write(folder / parts[-1][1] / "config.json", {
                "in_features": linear.in_features, "out_features": linear.out_features,
                "bias": linear.bias is not None, "activation_function": f"torch.nn.modules.activation.{module.name}",
            })  # fmt: skip
            weights = {f"linear.{name}": value.detach().cpu() for name, value in linear.state_dict().items()}
            save_file(weights, folder / parts[-1][1] / "model.safetensors")
    _write(folder / MODULES, [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(parts)
    ])  # fmt: skip


def _config(place: str, path: str) -> dict[str, Any]:
    config: dict[str, Any] | None = _read(place, f"{path}/config.json")
    if config is None:
        raise _incomplete(place, f"{path}/config.json")
    return config


def _incomplete(place: str, name: str) -> InputError:
    return InputError(f"text_encoder: {place} has no {name}, which its {MODULES} names: copy the whole folder")


def _pooling(config: dict[str, Any], place: str) -> str:
    """The one pooling that a Pooling module names, in the form of older or newer releases."""
    on = {
        name.removeprefix("pooling_mode_")
        for name, value in config.items()
        if value is True and "pooling_mode_" in name
    }
    modes = {name.removesuffix("_tokens").removesuffix("_token") for name in on}
    if "pooling_mode" in config:
        modes = set(str(config["pooling_mode"]).split("+"))
    if len(modes) != 1 or not modes <= POOLING.keys():
        names = "+".join(sorted(modes)) or "none"
        raise InputError(f"text_encoder: {place} pools by {names}, which is not implemented: set encoders.pooling")
    return POOLING[modes.pop()]


def _read_dense(place: str, path: str, config: dict[str, Any]) -> Dense:
    activation = str(config["activation_function"]).rsplit(".", 1)[-1]
    if activation not in ACTIVATIONS:
        raise InputError(
            f"text_encoder: {place}/{path} has an activation {activation}, which is unknown: set encoders.pooling"
        )
    if file := _file(place, f"{path}/model.safetensors"):
        weights = load_file(file)
    elif file := _file(place, f"{path}/pytorch_model.bin"):
        weights = torch.load(file, weights_only=True)
    else:
        raise _incomplete(place, f"{path}/model.safetensors")
    linear = nn.Linear(weights["linear.weight"].shape[1], weights["linear.weight"].shape[0], "linear.bias" in weights)
    linear.load_state_dict({name.removeprefix("linear."): value.float() for name, value in weights.items()})
    return Dense(linear, activation)


def _file(place: str, name: str) -> str | None:
    return cached_file(
        place, name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )


def _read(place: str, name: str) -> Any:
    file = _file(place, name.removeprefix("/"))
    return json.loads(Path(file).read_text(encoding="utf-8")) if file else None


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
