"""Seconds and peak memory of a command: `python -m stages.bench.subprocess_usage COMMAND …` runs it as a child process.

The command is started by a small process, not by the benchmark itself: after a fork, the kernel counts the memory of
the parent in the peak of the child.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


def subprocess_usage(
    arguments: list[str], folder: Path, environment: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Run `python ARGUMENTS` in `folder` → its `seconds` and `peak_gb` (peak resident memory, 10⁹ bytes).

    environment: variables besides those of this process. The output of the command goes to stderr.
    Raises CalledProcessError when it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "stages.bench.subprocess_usage", sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
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
    unit = 1 if sys.platform == "darwin" else 1024  # bytes per unit of ru_maxrss
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    print(json.dumps({"seconds": seconds, "peak_gb": peak / 1e9}))
    sys.exit(code)


if __name__ == "__main__":
    main()
