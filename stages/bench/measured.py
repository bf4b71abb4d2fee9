"""Seconds and peak memory of a command, in a process of its own: `python -m stages.bench.measured COMMAND …`.

The process in between is small on purpose: the kernel counts what a parent holds at the fork as the child's own.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def measured(command: list[str], folder: Path) -> dict[str, float]:
    """Run a `python …` command of the project in `folder` → its `seconds` and `peak_gb` (10⁹ bytes resident).

    Raises CalledProcessError when it fails; its own output is on stderr.
    """
    done = subprocess.run(
        [sys.executable, "-m", "stages.bench.measured", sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    begin = time.perf_counter()
    code = subprocess.run(sys.argv[1:], stdout=sys.stderr, check=False).returncode
    seconds = time.perf_counter() - begin
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    print(
        json.dumps({"seconds": seconds, "peak_gb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e9})
    )
    sys.exit(code)


if __name__ == "__main__":
    main()
