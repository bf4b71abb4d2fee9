"""Archive of per-user ranks in git (metrics/runs/): a table can be rebuilt, or extended, without training."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from stages.files import atomic
from stages.rank_files import PROTOCOLS
from stages.tables.experiments import ADDED, FinishedRun, is_compared, matches

COUNT = "training_count"  # of the test item, up to LARGEST: the last group of tables/groups.py begins there
LARGEST = 100
OF_SUMS = {"fused": ("fuse",), "distilled": ("fuse", "distill")}  # params that decide these alone


@dataclass(frozen=True)
class ArchivedRun:
    """One system's ranks from one experiment. commit: of the code that ran; params: by dotted key, those compared."""

    path: Path
    system: str
    commit: str
    params: dict[str, Any]
    trained_epochs: int
    split_id: str | None  # of the data that it was ranked on; None in runs that are older than such ids

    def matches(self, params: dict[str, Any]) -> bool:
        """Whether it was run with these params."""
        return matches(self.params, params)

    def ranks(self, system: str) -> pl.DataFrame | None:
        """The system's ranks of the test items, or None when this is another system's run."""
        return pl.read_parquet(self.path) if system == self.system else None

    def epochs(self, system: str) -> int:
        """How many epochs the system's training took."""
        return self.trained_epochs

    def split(self, system: str) -> str | None:
        """Id of the split that the system was ranked on."""
        return self.split_id


def archive_run(run: FinishedRun, system: str, folder: Path) -> None:
    """Write the system's ranks of this run into `folder`; a later run with the same params replaces them."""
    if isinstance(run, ArchivedRun) or (ranks := run.ranks(system)) is None:
        return
    params = _identity(run.params, system)
    digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:8]
    about = {
        "system": system, "commit": run.commit, "params": params, "epochs": run.epochs(system),
        "split": run.split(system),
    }  # fmt: skip
    path = folder / params["dataset"] / f"{system}_{params['seed']}_{digest}.parquet"
    for older in archived_runs(folder, f"{params['dataset']}/{system}_{params['seed']}_*.parquet"):
        if older.path != path and _identity(older.params, system) == params:  # named when there were fewer params
            older.path.unlink()
    with atomic(path) as temporary:
        counts = [pl.col(COUNT).clip(upper_bound=LARGEST)] if COUNT in ranks.columns else []
        frame = ranks.select(pl.col(*PROTOCOLS.values()).cast(pl.UInt32), *(count.cast(pl.UInt8) for count in counts))
        frame.write_parquet(temporary, compression="zstd", metadata={"run": json.dumps(about, sort_keys=True)})


def _identity(params: dict[str, Any], system: str) -> dict[str, Any]:
    """The params that tell a system's runs apart, those that older runs lack among them."""
    names = {"seed", *OF_SUMS.get(system, ())}  # of those that are not compared
    known = ADDED | params
    return {key: known[key] for key in known if key in names or is_compared(key, params["dataset"])}


def archived_runs(folder: Path, pattern: str = "*/*.parquet") -> list[ArchivedRun]:
    """The runs in `folder` whose paths there fit the pattern."""
    runs = []
    for path in sorted(folder.glob(pattern)):
        about = json.loads(pl.read_parquet_metadata(path)["run"])
        facts = (about[name] for name in ("system", "commit", "params", "epochs", "split"))
        runs.append(ArchivedRun(path, *facts))
    return runs
