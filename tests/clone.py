"""Make a clone of the working tree and run commands in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]


def make_clone(folder: Path, changes: dict[str, object]) -> str:
    """Copy the tracked and new files of the working tree into a new git repository, change params, run `dvc repro`.

    changes: by dotted key. → the output of `dvc repro`.
    """
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    for key, value in changes.items():
        *sections, name = key.split(".")
        (params[sections[0]] if sections else params)[name] = value
    yaml.dump(params, folder / "params.yaml")
    run(folder, "git", "init", "-q")
    commit(folder)
    output = run(folder, "dvc", "repro")
    commit(folder)
    return output


def run(folder: Path, *command: str) -> str:
    """Run a command in the clone with dvc and python of this environment → its stdout."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder.parent / "site-cache"),
    }
    environment.pop("DVC_ROOT", None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def commit(folder: Path) -> None:
    """Commit everything."""
    run(folder, "git", "add", "-A")
    run(
        folder,
        "git",
        "-c",
        "user.name=test",
        "-c",
        "user.email=test@example.invalid",
        "commit",
        "--allow-empty",
        "-qm",
        "state",
    )


def stages_run(output: str) -> list[str]:
    """The stages that DVC reports as run, in order; not those that it restored, nor `source`, which always runs."""
    ran = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]
    return [name for name in ran if name != "source"]
