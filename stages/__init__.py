"""The pipeline. Importing it prepares the process: which kernels torch uses, what Ctrl-C prints.

torch and oneDNN choose their kernels by the processor, and those for AVX-512 add up in another order than those for
AVX2. Here they are no faster, so the stages ask for AVX2 on both and compute the same bits. A user who sets these
variables decides otherwise; they count as long as torch has not computed anything.
"""

import os
import sys
from pathlib import Path
from types import TracebackType

INTERRUPTED = "interrupted: the same command goes on from here"
_PROCESSOR = Path("/proc/cpuinfo")

if _PROCESSOR.is_file() and "avx512" in _PROCESSOR.read_text(encoding="utf-8"):
    os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C while a stage is still importing: one line in place of a traceback through other people's modules."""
    if issubclass(kind, KeyboardInterrupt):
        print(INTERRUPTED, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _report
