"""Mutation testing: `python -m tests.mutation stages/training/ranking.py`, or all modules of pyproject.toml.

Each mutant is the module with one small change; it is killed when one of the module's own tests fails. Without
arguments it goes on where it stopped. After a change of the module all its mutants are run, after a change of its tests
only the survivors; `--fresh` runs all of them again. It prints the survivors' diffs.

The changes are mutmut's, and one more: a call whose result is not used is left out. mutmut's own runner leaves out
decorated functions (`@torch.no_grad()`, `@property`); this one writes no trampolines and can change them. Each mutant
runs in a fork of a process that has imported torch; code that a test runs in a process of its own stays unchanged.
"""

import argparse
import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType

import libcst as cst
import pytest
from mutmut.mutation.file_mutation import MutationVisitor, OuterFunctionProvider
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
VERDICTS = ROOT / ".cache" / "mutation"
OPTIONS = ["--override-ini=addopts=", "--import-mode=importlib", "-p", "no:xdist", "-p", "no:cacheprovider", "-qx"]
SLOWER = 5  # a mutant is killed when its tests take more than SLOWER times as long as the module's, and GRACE seconds
GRACE = 20
MEMORY = 16 * 2**30  # bytes that a mutant may allocate


def delete_call(statement: cst.Expr) -> Iterator[cst.CSTNode]:
    """`model.eval()` → `pass`."""
    if isinstance(statement.value, cst.Call):
        yield cst.Pass()


class Mutations(MutationVisitor):
    """mutmut's mutations, in decorated functions too, but not of type aliases."""

    def __init__(self) -> None:
        super().__init__([*mutation_operators, (cst.Expr, delete_call)], IgnoredCode(set(), set(), set()))

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef) and node.decorators:
            return False
        at_top = self.get_metadata(OuterFunctionProvider, node, None) is None
        if at_top and isinstance(node, cst.Assign) and isinstance(node.value, cst.Subscript):
            return True  # Batches = Callable[[int], Iterable[Batch]]
        return super()._skip_node_and_children(node)


def mutants(source: str) -> list[str]:
    """The module's source with one change each, every different one once."""
    wrapper = cst.MetadataWrapper(cst.parse_module(source))
    visitor = Mutations()
    wrapper.visit(visitor)
    changed = (wrapper.module.deep_replace(m.original_node, m.mutated_node) for m in visitor.mutations)
    codes = dict.fromkeys(tree.code for tree in changed if isinstance(tree, cst.Module))
    return [code for code in codes if code != source]


class Source(SourceFileLoader):
    """Loads a module from a text instead of its file."""

    def __init__(self, name: str, path: Path, code: str) -> None:
        super().__init__(name, str(path))
        self.code = code

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.code, self.path, "exec")

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)


def run_tests(module: Path, code: str, tests: list[str], log: Path) -> None:
    """Exit with pytest's status of the tests on the module as `code` has it. Runs in a process of its own."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.meta_path.insert(0, Source(".".join(module.with_suffix("").parts), ROOT / module, code))
    os.chdir(log.parent)  # a mutant may write anywhere below
    folders = [f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}", f"--basetemp={log.parent / 'tests'}"]
    status = pytest.main([*OPTIONS, *folders, *(str(ROOT / test) for test in tests)])
    log.with_name("modules").write_text("\n".join(sys.modules))
    sys.stdout.flush()
    os._exit(status)


def import_libraries(log: Path) -> None:
    """Import torch and what else the tests have imported, so that every fork has it; the project's own modules not."""
    for name in log.with_name("modules").read_text().splitlines():
        if name.partition(".")[0] not in ("stages", "tests", "__main__", "conftest"):
            with contextlib.suppress(ImportError):  # what a library has made up, or a test plugin
                importlib.import_module(name)


def verdict(module: Path, code: str, tests: list[str], log: Path, limit: float | None = None) -> str:
    """`survived`, `killed` or `timeout`. limit: seconds."""
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=(module, code, tests, log))
    process.start()
    process.join(limit)
    if process.is_alive():
        os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
        return "timeout"
    return "survived" if process.exitcode == pytest.ExitCode.OK else "killed"


def digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


class Journal:
    """Verdicts by the digest of the mutant's source, and of the tests that gave them, one JSON line each."""

    def __init__(self, module: Path, tests: list[str], fresh: bool) -> None:
        self.path = VERDICTS / f"{'.'.join(module.with_suffix('').parts)}.jsonl"
        self.tests = digest(*((ROOT / test).read_text(encoding="utf-8") for test in tests))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            self.path.unlink(missing_ok=True)
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        self.lines = {line["mutant"]: line for line in map(json.loads, lines)}

    def verdict(self, code: str) -> str | None:
        line = self.lines.get(digest(code))
        if line is None or (line["verdict"] == "survived" and line["tests"] != self.tests):
            return None
        return str(line["verdict"])

    def add(self, code: str, verdict: str) -> None:
        line = {"mutant": digest(code), "tests": self.tests, "verdict": verdict}
        self.lines[line["mutant"]] = line
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def diff(source: str, code: str, module: Path | str) -> str:
    """The changed lines, with the number of the first."""
    lines = list(difflib.unified_diff(source.splitlines(), code.splitlines(), lineterm="", n=0))[2:]
    number = lines[0].split()[1].lstrip("-").partition(",")[0]
    return "\n".join([f"{module}:{number}", *lines[1:]])


def judge_module(module: Path, tests: list[str], fresh: bool) -> bool:
    """Judge every mutant of a module and print the survivors. → whether the unchanged module passes its tests."""
    source, journal = (ROOT / module).read_text(encoding="utf-8"), Journal(module, tests, fresh)
    codes = mutants(source)
    todo = [code for code in codes if journal.verdict(code) is None]
    with tempfile.TemporaryDirectory() as folder:
        log, started = Path(folder) / "log", time.monotonic()
        if todo and verdict(module, source, tests, log) != "survived":
            print(log.read_text(encoding="utf-8"), f"{module}: its tests fail without a change", sep="\n")
            return False
        limit = SLOWER * (time.monotonic() - started) + GRACE
        if todo:
            import_libraries(log)
        for code in tqdm(todo, desc=module.name, unit="mutant", disable=None):
            journal.add(code, verdict(module, code, tests, log, limit))
    verdicts = {code: journal.verdict(code) for code in codes}
    for code in (code for code, said in verdicts.items() if said == "survived"):
        print(diff(source, code, module), end="\n\n")
    count = Counter(verdicts.values())
    killed = count["killed"] + count["timeout"]
    share = killed / max(1, len(codes))
    print(f"{module}: {len(codes)} mutants, {killed} killed ({share:.0%}), {count['survived']} survived", flush=True)
    return True


def main() -> None:
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutation"]["modules"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="e.g. stages/training/ranking.py; default: all")
    parser.add_argument("--fresh", action="store_true", help="run all mutants again")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.modules if name not in configured]:
        parser.error(f"pyproject.toml, tool.mutation.modules, has no {', '.join(unknown)}")
    chosen = {name: configured[name] for name in arguments.modules or configured}
    passed = [judge_module(Path(name), tests, arguments.fresh) for name, tests in chosen.items()]
    sys.exit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
