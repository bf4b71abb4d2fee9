"""For each system of Table 4 the hashes of the files that define it, so that an edit trains only that system again.

`baseline@NAME` depends on NAME's file of hashes; dvc.yaml cannot name a different model for each NAME.
"""

import hashlib
from pathlib import Path

from stages.errors import run_stage
from stages.files import atomic, write_json
from stages.imports import ROOT, imported_files, module_file
from stages.models.systems import SYSTEMS, System

FOLDER = Path("artifacts/baselines/code")


def definition(system: System) -> dict[str, object]:
    """The system's row of the registry, and the SHA-256 of every file that its module imports, by path."""
    module = module_file(system.module_name)
    files = sorted({module, *imported_files(module)})
    hashes = {file.relative_to(ROOT).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return {
        "scheme": system.scheme.name,
        "content": system.content,
        "dropout": system.dropout,
        "options": system.options,
        "files": hashes,
    }


def main() -> str:
    """Write artifacts/baselines/code/NAME.json for every system."""
    with atomic(FOLDER) as folder:
        folder.mkdir(parents=True)
        for name, system in SYSTEMS.items():
            write_json(folder / f"{name}.json", definition(system))
    return f"{len(SYSTEMS)} systems"


if __name__ == "__main__":
    run_stage(main)
