"""Description of the machine that a benchmark ran on."""

import platform
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")


def machine(device: torch.device) -> str:
    """Name of the GPU, or of the processor with the number of threads; torch's version."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _cpuinfo() -> list[str]:
    return CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.is_file() else []
