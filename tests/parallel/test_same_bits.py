"""Which of torch's kernels the stages compute with, in a process of its own, as they are chosen once."""

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


def test_kernels_for_avx512_add_up_in_another_order_and_are_not_used():
    assert capability() != "AVX512"


def test_a_choice_of_the_user_s_own_stays():
    assert capability(ATEN_CPU_CAPABILITY="default") == "DEFAULT"
