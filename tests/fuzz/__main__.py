"""Random datasets with the oddities of real ones, through the stages: `python -m tests.fuzz --minutes 10`.

`--seed N` repeats one. Each run must end right (users, histories, titles and covers are those that were generated) or
with one line of InputError, and must leave no half-written file. Most runs are of download and split; every
hundredth goes on to the report.
"""

import argparse
import contextlib
import importlib
import io
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
from ruamel.yaml import YAML

from stages.errors import InputError
from tests.fuzz.datasets import Case, make_case

PARAMS = Path(__file__).parents[2] / "params.yaml"
REST = ("pairs", "sft", "embed", "pretrain", "posttrain", "evaluate", "report")
SMALL = {
    "dim": 8, "sequence": {"layers": 1, "heads": 1, "max_length": 10}, "encoders": {"workers": 0}, "sft": {"epochs": 1},
    "pretrain": {"epochs": 1}, "posttrain": {"epochs": 1}, "evaluate": {"bootstrap": 100}, "baselines": [],
}  # fmt: skip
SECONDS = 60  # that the first two stages may take, and each of the others
EVERY = 100  # how often a run goes on to the report


class Finding(Exception):
    """What a run did that it must not do."""


def run_case(seed: int, to_the_end: bool) -> str:
    """One dataset through the stages. → `right`, or `refused: …`. Raises Finding, or what a stage raised."""
    case = make_case(random.Random(seed), Path("source"))
    content = YAML(typ="safe").load(PARAMS)
    for section, changes in SMALL.items():
        content[section] = content[section] | changes if isinstance(changes, dict) else changes
    YAML().dump(content | case.params, Path("params.yaml"))
    try:
        for stage in ("source", "download", "split"):
            run_stage(stage)
    except InputError as error:
        check_refusal(case, str(error))
        return f"refused: {case.fault or 'not certain'}"
    finally:
        check_nothing_half_written()
    if case.fault:
        raise Finding(f"{case.fault} was not noticed")
    check_result(case)
    if to_the_end:
        for stage in REST:
            try:
                run_stage(stage)
            except InputError as error:
                check_line(str(error))
                return f"right, and refused by {stage}: {error}"
            finally:
                check_nothing_half_written()
    return "right to the end" if to_the_end else "right"


def run_stage(name: str) -> None:
    """Run a stage in this process, its output thrown away; Finding when it takes too long."""
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            importlib.import_module(f"stages.{name}").main()
    finally:
        signal.alarm(0)


def check_refusal(case: Case, message: str) -> None:
    """A refusal is one line, and has a reason in the case."""
    check_line(message)
    if not case.fault and not any(reason in message for reason in case.may_be_refused):
        raise Finding(f"refused without a reason: {message}")


def check_line(message: str) -> None:
    """An InputError is one line that can be read."""
    if "\n" in message or len(message) > 700:
        raise Finding(f"no line to read: {message!r}")


def check_nothing_half_written() -> None:
    """No temporary file or folder is left in the workspace."""
    names = [
        path for path in Path().rglob("*") if path.name.endswith(".tmp") or path.name.startswith((".parts", "tmp"))
    ]
    if names:
        raise Finding(f"left behind: {names}")
    written = {path.name for path in Path("artifacts/split").glob("*")} if Path("artifacts/split").is_dir() else set()
    if written and len(written) != 5:
        raise Finding(f"artifacts/split has only {sorted(written)}")


def check_result(case: Case) -> None:
    """What split wrote is what was generated."""
    items = pl.read_parquet("artifacts/split/items.parquet")
    names = dict(items.select("item", "raw_id").iter_rows())
    full = pl.read_parquet("artifacts/split/full.parquet")
    histories = [(user, [names[item] for item in row]) for user, row in full.select("raw_id", "items").iter_rows()]
    expected = case.histories()
    if histories != expected:
        wrong = next((pair for pair in zip(histories, expected, strict=False) if pair[0] != pair[1]), None)
        raise Finding(f"{len(histories)} users, not {len(expected)}, or other histories: {wrong}")
    for raw_id, zh, en, cover in items.select("raw_id", "title_zh", "title_en", "cover").iter_rows():
        if (zh, en) != case.titles.get(raw_id, ("", "")):
            raise Finding(f"titles of {raw_id!r}: {(zh, en)!r}, not {case.titles.get(raw_id)!r}")
        if cover != (raw_id in case.covers):
            raise Finding(f"cover of {raw_id!r}: {cover}")
    packed = Path(f"artifacts/raw/{case.params['dataset']}_cover.zip")
    if packed.exists():
        with zipfile.ZipFile(packed) as archive:
            found = {Path(name).stem: archive.read(name) for name in archive.namelist()}
        if found != case.covers:
            raise Finding(f"covers of {sorted(found)}, not {sorted(case.covers)}, or other bytes")
    elif case.covers:
        raise Finding("no covers")


@contextlib.contextmanager
def workspace() -> Iterator[None]:
    """An empty current folder."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _too_long(*_: object) -> None:
    raise Finding(f"took more than {SECONDS} seconds")


def fuzz(seeds: Iterator[int], goes_on: Callable[[], bool], to_the_end: Callable[[int], bool]) -> int:
    """Run seeds as long as `goes_on()`; print findings with their seeds. → how many findings."""
    outcomes: Counter[str] = Counter()
    findings = 0
    while goes_on() and (seed := next(seeds, None)) is not None:
        with workspace():
            try:
                outcomes[run_case(seed, to_the_end(seed))] += 1
            except Exception as error:  # whatever it is, it is what we look for
                findings += 1
                print(f"seed {seed}: {error if isinstance(error, Finding) else traceback.format_exc()}", flush=True)
    print(f"{sum(outcomes.values()) + findings} datasets, {findings} findings")
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:6} {outcome}")
    return findings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, help="repeat this one alone, to the end")
    parser.add_argument("--first", type=int, default=int(time.time()), help="the first seed of a run by minutes")
    chosen = parser.parse_args()
    os.environ.pop("DVC_ROOT", None)
    signal.signal(signal.SIGALRM, _too_long)
    if chosen.seed is not None:
        sys.exit(bool(fuzz(iter([chosen.seed]), lambda: True, lambda _: True)))
    print(f"seeds from {chosen.first}", flush=True)
    end = time.monotonic() + 60 * chosen.minutes
    seeds = iter(range(chosen.first, chosen.first + 10**9))
    sys.exit(bool(fuzz(seeds, lambda: time.monotonic() < end, lambda seed: seed % EVERY == 0)))


if __name__ == "__main__":
    main()
