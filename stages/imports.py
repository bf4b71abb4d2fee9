"""Which of the project's modules a module imports, read from its source without running it."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]


@cache
def direct_imports(path: Path) -> frozenset[Path]:
    """The project's files that `path` imports by itself, except imports under `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return frozenset(file for name in names if (file := module_file(name)).is_file())


def module_file(name: str) -> Path:
    """`stages.models.sasrec` → the path of its file."""
    return ROOT / (name.replace(".", "/") + ".py")


def imported_files(path: Path) -> set[Path]:
    """Every file of the project that `path` imports, directly or through other modules, without `path` itself."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        new = direct_imports(waiting.pop()) - found - {path}
        found |= new
        waiting += new
    return found
