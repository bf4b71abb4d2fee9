"""params.yaml of a temporary workspace in which a benchmark runs stages."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML


def write_params(folder: Path, changes: dict[str, Any]) -> None:
    """Write params.yaml of this folder with changes into `folder`; the dict of a section changes only its own keys."""
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    for key, value in changes.items():
        params[key] = {**params[key], **value} if isinstance(value, dict) else value
    yaml.dump(params, folder / "params.yaml")
