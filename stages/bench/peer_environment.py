"""Environments of their own for the libraries that the benchmark compares with: they need other versions than ours."""

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from stages.files import cache_folder

HERE = Path(__file__).parent


class Unavailable(Exception):
    """A library could not be installed."""


def environment(name: str) -> Path:
    """Python of the environment `.cache/NAME`, with the packages of `NAME.txt`; made when these are not in it yet.

    Raises Unavailable.
    """
    folder = cache_folder(name).absolute()
    python, ready, requirements = folder / "bin" / "python", folder / "ready", HERE / f"{name}.txt"
    if ready.is_file() and ready.read_text() == requirements.read_text():
        return python
    try:
        venv.create(folder, with_pip=True, clear=True)
    except subprocess.CalledProcessError as error:  # a Python without ensurepip
        raise Unavailable(f"venv could not create {folder}: {error}") from error
    command = [str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip() or f"exit status {done.returncode}"
        raise Unavailable(f"pip could not install it: {reason.splitlines()[-1]}")
    ready.write_text(requirements.read_text())
    return python


def run_in_environment(name: str, settings: dict[str, Any], folder: Path) -> dict[str, float]:
    """Run `NAME_runner.py` in its environment and in `folder`, with the settings as JSON → the JSON on its last line.

    Raises Unavailable, and CalledProcessError when the script fails.
    """
    command = [str(environment(name)), str(HERE / f"{name}_runner.py"), json.dumps(settings)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
        done.check_returncode()
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
