"""DVC loses the results of experiments run in a copy of a shallow clone (`git clone --depth`), and reports success.

`dvc exp run --queue` and `--temp` run in a copy of the workspace. DVC then fetches the experiment's commit from the
copy, which git refuses in a shallow repository; the experiment does not exist afterwards.
"""

import os
import subprocess
from pathlib import Path

from stages.errors import InputError

MEND = "run `git fetch --unshallow`, then queue the experiments again"


def is_shallow(folder: Path) -> bool:
    """Whether the folder is in a shallow clone. Outside of git, or without the git command, it is not."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "--is-shallow-repository"], cwd=folder, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:  # no git command
        return False
    return answer.stdout.strip() == "true"


def refuse_experiment_in_shallow_clone() -> None:
    """Raise InputError if this process runs in DVC's copy of a workspace that is a shallow clone."""
    workspace = Path(os.environ.get("DVC_ROOT", "."))  # DVC sets it to the workspace, also in a copy
    if workspace.resolve() != Path.cwd().resolve() and is_shallow(workspace):
        raise InputError(f"{workspace} is a shallow clone, in which DVC would lose this experiment: {MEND}")
