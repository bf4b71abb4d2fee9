"""Models as safetensors files with their configuration in the metadata, and the file of an interrupted run."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from stages.errors import InputError
from stages.files import atomic, cache_folder
from stages.parallel.device import precision_in_use
from stages.provenance import MODEL_KEY, Ids, as_metadata

CODE = Path(__file__).parents[1]

Model = TypeVar("Model", bound=nn.Module)


@runtime_checkable
class ConfiguredModel(Protocol):
    """What `save_model` calls: an `nn.Module` with its configuration."""

    config: Any  # a dataclass of what JSON can hold

    def state_dict(self) -> dict[str, Any]: ...


def save_model(path: Path, model: ConfiguredModel, inputs: Ids) -> None:
    """Write the model's weights, and in the file's metadata its configuration as JSON and what it was trained on.

    inputs: of `check_inputs`.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    config = asdict(model.config)
    # one key: safetensors writes several in a random order
    about = {"config": config, **as_metadata(_model_id(weights, config), inputs)}
    with atomic(path) as temporary:
        save_file(weights, temporary, metadata={MODEL_KEY: json.dumps(about, sort_keys=True)})


def _model_id(weights: dict[str, torch.Tensor], config: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def read_config(path: Path) -> dict[str, Any]:
    """The configuration that `save_model` wrote. Raises InputError when the file is missing."""
    if not path.is_file():
        raise InputError(f"{path} is missing: run `dvc repro` to make it")
    with safe_open(path, framework="pt") as file:
        config: dict[str, Any] = json.loads(file.metadata()[MODEL_KEY])["config"]
    return {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}


def load_weights(path: Path, model: nn.Module) -> None:
    """Load the file's weights into `model`; all names and shapes must match."""
    with safe_open(path, framework="pt") as file:
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (not a dict)


def load_model(path: Path, kind: Callable[[Any], Model], config: Callable[..., Any]) -> Model:
    """The model that `save_model` wrote, in evaluation mode. kind, config: the classes of the model and its config.

    Raises InputError when the file is missing.
    """
    model = kind(config(**read_config(path)))
    load_weights(path, model)
    return model.eval()


def state_path(stage: str, settings: Any, inputs: list[Path]) -> Path:
    """The file for an interrupted run of `stage`. Its name is a hash of all that decides the result, code included."""
    about = [stage, settings, torch.__version__, precision_in_use()]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for path in [*inputs, *sorted(CODE.rglob("*.py"))]:
        digest.update(path.read_bytes())
    return cache_folder("training") / f"{stage}-{digest.hexdigest()[:16]}.pt"
