"""The CPU kernels that torch chooses in the stages: in a new process, because torch chooses them once."""

import os
import subprocess
import sys

from tests.clone import ROOT

PRINT = "import stages.pretrain, torch; print(torch.backends.cpu.get_cpu_capability())"
CHOICE = "ATEN_CPU_CAPABILITY"


def capability(**settings: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != CHOICE} | settings
    return subprocess.run(
        [sys.executable, "-c", PRINT], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_avx512_kernels_which_sum_in_another_order_are_not_used():
    assert capability() != "AVX512"


def test_the_user_s_choice_of_kernels_stays():
    assert capability(ATEN_CPU_CAPABILITY="default") == "DEFAULT"
