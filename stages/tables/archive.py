"""Archive of per-user ranks in git (metrics/runs/): a table can be rebuilt, or extended, without training."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from stages.files import atomic
from stages.tables.experiments import NOT_COMPARED, FinishedRun, matches

RANKS = ("rank", "rank_filtered")  # of each user's test item, in the order of test.parquet
COUNT = "training_count"  # of the test item, up to LARGEST: the last group of tables/groups.py begins there
LARGEST = 100


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
    names = {"seed", "fuse"} if system == "fused" else {"seed"}  # of NOT_COMPARED, those that tell its runs apart
    params = {key: value for key, value in run.params.items() if key in names or key not in NOT_COMPARED}
    digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:8]
    about = {
        "system": system, "commit": run.commit, "params": params, "epochs": run.epochs(system),
        "split": run.split(system),
    }  # fmt: skip
    with atomic(folder / params["dataset"] / f"{system}_{params['seed']}_{digest}.parquet") as temporary:
        counts = [pl.col(COUNT).clip(upper_bound=LARGEST)] if COUNT in ranks.columns else []
        frame = ranks.select(pl.col(*RANKS).cast(pl.UInt32), *(count.cast(pl.UInt8) for count in counts))
        frame.write_parquet(temporary, compression="zstd", metadata={"run": json.dumps(about, sort_keys=True)})


def archived_runs(folder: Path) -> list[ArchivedRun]:
    """Every run in `folder`."""
    runs = []
    for path in sorted(folder.glob("*/*.parquet")):
        about = json.loads(pl.read_parquet_metadata(path)["run"])
        facts = (about[name] for name in ("system", "commit", "params", "epochs", "split"))
        runs.append(ArchivedRun(path, *facts))
    return runs
