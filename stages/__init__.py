"""The pipeline. Every stage computes on a processor with AVX-512 as on one with AVX2, to the same bits.

torch and oneDNN choose their kernels by the processor, and those for AVX-512 add up in another order. Here they are no
faster. Whoever sets these variables decides otherwise; they count as long as torch has not computed anything.
"""

import os
from pathlib import Path

_PROCESSOR = Path("/proc/cpuinfo")

if _PROCESSOR.is_file() and "avx512" in _PROCESSOR.read_text(encoding="utf-8"):
    os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
