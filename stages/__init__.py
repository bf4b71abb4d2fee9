"""The pipeline. Importing it prepares the process: which kernels torch uses, what Ctrl-C and a missing package print.

torch and oneDNN choose their kernels by the processor, and those for AVX-512 add up in another order than those for
AVX2. Here they are no faster, so the stages ask for AVX2 on both and compute the same bits. Only `precision=bfloat16`
lifts oneDNN's limit, as products in bfloat16 need AVX-512 or AMX. A user who sets these variables decides otherwise;
they count as long as torch has not computed anything.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import TracebackType

STARTED = time.monotonic()  # a stage's seconds are counted from here; Python itself took a tenth of one before
INTERRUPTED = "interrupted: the same command goes on from here"
OLDEST_PYTHON = (3, 11)
_PROCESSOR = Path("/proc/cpuinfo")

ISA_LIMIT = ""  # the variable by which oneDNN was limited here; "" if it was not

if _PROCESSOR.is_file() and "avx512" in _PROCESSOR.read_text(encoding="utf-8"):
    os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
    if "ONEDNN_MAX_CPU_ISA" not in os.environ:
        ISA_LIMIT = "ONEDNN_MAX_CPU_ISA"
        os.environ[ISA_LIMIT] = "AVX2"


def allow_bfloat16() -> None:
    """Lift the limit that was set here. oneDNN reads it at its first product: later, bfloat16 is 50 times slower."""
    if ISA_LIMIT:
        os.environ[ISA_LIMIT] = "DEFAULT"


def too_old(version: tuple[int, ...]) -> str | None:
    """What to tell the user of a Python that is too old, else None. version: as sys.version_info."""
    if version >= OLDEST_PYTHON:
        return None
    found, oldest = (".".join(map(str, numbers)) for numbers in (version[:3], OLDEST_PYTHON))
    return f"error: {sys.executable} is Python {found}: activate an environment with Python {oldest} or newer"


if line := too_old(sys.version_info[:3]):
    sys.exit(line)


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """One line, not a traceback, for Ctrl-C while a stage is importing, and for a package that is not installed."""
    if issubclass(kind, KeyboardInterrupt):
        print(INTERRUPTED, file=sys.stderr)
    elif isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] != __name__:
        print(
            f"error: {sys.executable} has no package {error.name}: activate the environment, or run "
            f"`{Path(sys.executable).name} -m pip install -r requirements.txt`",
            file=sys.stderr,
        )
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _report
