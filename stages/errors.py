"""How a stage runs and ends: its line on the screen, and the one exception that means "your input is wrong"."""

import errno
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from stages import INTERRUPTED, STARTED

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class InputError(Exception):
    """A fault of the user's input: names the file, key or item and the mend, in one line."""


def run_stage(main: Callable[[], str | None], *, options: bool = False) -> None:
    """Run a stage and print one line: its name, its seconds, and what `main` says it did (None: no line).

    options: whether `main` reads the command line; otherwise --help prints the script's docstring, and anything else
    after its name is refused with status 2.
    What the user can mend becomes one line on stderr and exit status 1, Ctrl-C or SIGTERM status 130. Any other
    exception is a bug and keeps its traceback. Of several processes under torchrun only rank 0 prints what it did.
    """
    if not options:
        _refuse_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, or temporary files would stay
    if "triton" not in sys.modules:  # uncollected, it prints what it calls leaks
        gc.freeze()  # modules live to the end: without this, looking through them takes a second at exit
    try:
        done = main()
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if (line := user_fault(error)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
    if done is not None and os.environ.get("RANK", "0") == "0":
        name = "@".join([Path(sys.argv[0]).stem, *sys.argv[1:]])  # as DVC writes it: baseline@pop
        print(f"{name:<10} {time.monotonic() - STARTED:5.1f} s  {done}", flush=True)


def _refuse_options() -> None:
    if len(sys.argv) == 1:
        return
    from argparse import ArgumentParser, RawDescriptionHelpFormatter  # seldom needed

    script = sys.modules["__main__"]
    name = script.__spec__.name if script.__spec__ else Path(sys.argv[0]).stem
    ArgumentParser(
        prog=f"python -m {name}", description=script.__doc__, formatter_class=RawDescriptionHelpFormatter
    ).parse_args()


def user_fault(error: Exception) -> str | None:
    """What the user should read of an exception that the user can mend, else None."""
    if isinstance(error, InputError):
        return str(error)
    if _is_no_space(error):
        return f"no space left on the disk{_at(error)}: free some and run the same command again"
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return f"file too large for the file system or `ulimit -f`{_at(error)}: raise the limit, or run elsewhere"
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return f"read-only file system{_at(error)}: run elsewhere"
    if isinstance(error, PermissionError):
        what = f"permission denied at {error.filename}" if error.filename else str(error)  # of polars: in its words
        return f"{what}: change the permissions, or run elsewhere"
    if _is_gpu_out_of_memory(error):
        return (
            "the GPU has too little memory: lower the batch in params.yaml (batch_positions, sft.batch_size, "
            "encoders.batch_size), set loss.negatives to a number, or use device=cpu"
        )
    if _is_out_of_memory(error):
        return (
            "this machine has too little memory: lower the batch in params.yaml (batch_positions, sft.batch_size, "
            "encoders.batch_size), or set loss.negatives to a number"
        )
    return None


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)  # torch's words


def _is_no_space(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return True
    # polars and safetensors raise errors of their own, which only quote the system's words
    if any(os.strerror(number) in str(error) for number in NO_SPACE):
        return True
    # torch.save raises one that does not, while it handles the system's
    return isinstance(error.__context__, Exception) and _is_no_space(error.__context__)


def _at(error: Exception) -> str:
    name = getattr(error, "filename", None)
    return f" at {name}" if name else ""


def _is_gpu_out_of_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")  # a stage that never imported it cannot have run out of GPU memory
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
