"""Stages one after another in this process, for tests that start several: `torchrun … -m tests.run_stages sft embed`.

`baseline:NAME` is `python -m stages.baseline NAME`.
"""

import importlib
import sys

import torch.distributed as dist

from stages.errors import run_stage


def main() -> None:
    for name in sys.argv[1:]:
        stage, _, system = name.partition(":")
        sys.argv = [stage, system]
        importlib.import_module(f"stages.{stage}").main()
        if dist.is_initialized():
            dist.barrier()  # the first process writes what all read next


if __name__ == "__main__":
    run_stage(main, options=True)
