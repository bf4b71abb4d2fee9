import errno
import gc
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

from stages.errors import InputError, run_stage, user_fault
from tests.clone import ROOT


@pytest.fixture(autouse=True)
def as_a_stage(monkeypatch):
    """A command line without options; and collectable again what `run_stage` has exempted for the rest of a process."""
    monkeypatch.setattr("sys.argv", ["/place/stages/split.py"])
    yield
    gc.unfreeze()


def ended(error: BaseException, capsys) -> tuple[int, str]:
    """Exit status and standard error of a stage that raises `error`."""

    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        run_stage(main)
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("file.csv: line 3: mend it"), "error: file.csv: line 3: mend it\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "x.parquet"),
            "error: no space left on the disk at x.parquet",
        ),
        (
            pl.exceptions.ComputeError("parquet: underlying IO error: No space left on device (os error 28)"),
            "error: no space left on the disk: free some",
        ),
        (OSError(errno.EROFS, "Read-only file system", "x.parquet"), "error: read-only file system at x.parquet: run"),
        (OSError(errno.EFBIG, "File too large", "x.pt"), "error: file too large for the file system or `ulimit -f`"),
        (PermissionError(errno.EACCES, "Permission denied", "x.pt"), "error: permission denied at x.pt: change the"),
        (torch.OutOfMemoryError("CUDA out of memory"), "error: the GPU has too little memory: lower the batch"),
        (MemoryError("Unable to allocate 9 TiB"), "error: this machine has too little memory: lower the batch"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_status_one(error, line, capsys):
    status, printed = ended(error, capsys)
    assert status == 1
    assert printed.startswith(line) and printed.count("\n") == 1


def test_a_stage_ends_with_its_name_its_seconds_and_what_it_did(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["/place/stages/baseline.py", "pop"])
    run_stage(lambda: "nothing is trained", options=True)
    assert re.fullmatch(r"baseline@pop +\d+\.\d s  nothing is trained\n", capsys.readouterr().out)


@pytest.mark.parametrize(("rank", "done"), [("1", "3 epochs"), ("0", None)])
def test_another_rank_than_0_and_a_script_that_says_nothing_print_no_line(rank, done, monkeypatch, capsys):
    monkeypatch.setenv("RANK", rank)
    run_stage(lambda: done)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("option", "status", "printed"),
    [
        ("--help", 0, "usage: python -m stages.split [-h]\n\nInteractions to histories"),
        ("test", 2, "python -m stages.split: error: unrecognized arguments: test\n"),
    ],
)
def test_a_script_without_options_explains_itself_and_refuses_others(option, status, printed, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stages.split", option]  # in an empty folder: it fails if it runs
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == status
    assert printed in ended.stdout + ended.stderr


@pytest.mark.parametrize("error", [KeyError("a bug"), OSError(errno.EIO, "Input/output error")])
def test_any_other_error_keeps_its_traceback(error):
    def main():
        raise error

    with pytest.raises(type(error)):
        run_stage(main)


def test_memory_that_torch_cannot_allocate_is_one_line(capsys):
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50)
    status, printed = ended(raised.value, capsys)
    assert status == 1
    assert printed.startswith("error: this machine has too little memory") and printed.count("\n") == 1


AFTER_IMPORTS = """
import time
from stages.errors import run_stage

def main():
    print("running", flush=True)
    time.sleep(60)

run_stage(main)
"""
WHILE_IMPORTING = """
import stages, time
print("running", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("code", "number", "statuses"),
    [
        (AFTER_IMPORTS, signal.SIGINT, {130}),
        (WHILE_IMPORTING, signal.SIGINT, {130, -signal.SIGINT}),
        (AFTER_IMPORTS, signal.SIGTERM, {130}),  # of a scheduler that ends a job
    ],
)
def test_an_interruption_is_one_line_and_status_130(code, number, statuses):
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout.readline() == "running\n"
    process.send_signal(number)
    _, printed = process.communicate(timeout=30)
    assert process.returncode in statuses  # a shell shows 130 for a process that SIGINT ended
    assert printed == "interrupted: the same command goes on from here\n"


def test_a_permission_that_polars_is_denied_is_one_line_in_its_words():
    denied = PermissionError("Permission denied (os error 13): x.parquet")
    assert user_fault(denied) == f"{denied}: change the permissions, or run elsewhere"


@pytest.mark.parametrize("numbers", [10, 1_000_000])  # torch raises different errors for a small and a large file
def test_a_full_disk_while_torch_writes_is_one_line(numbers):
    with pytest.raises((OSError, RuntimeError)) as raised, Path("/dev/full").open("wb") as file:
        torch.save({"weights": torch.zeros(numbers)}, file)
    assert user_fault(raised.value).startswith("no space left on the disk")
