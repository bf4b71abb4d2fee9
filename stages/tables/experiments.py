"""Finished experiments out of DVC: what each was run with, and the files that it made."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol

import dvc.api
import polars as pl
from dvc.exceptions import DvcException
from ruamel.yaml import YAML

from stages.errors import InputError
from stages.tables.rows import OURS, Row

# what does not change what is learnt, and what a table averages or lists
NOT_COMPARED = {
    "seed",
    "baselines",
    "baseline.absent",
    "source",
    "launch",
    "device",
    "download.sha256",
    "ollama.hosts",
    "ollama.concurrency",
    "ollama.timeout",
    "ollama.keep_alive",
    "encoders.workers",
    "evaluate.bootstrap",
}


SHORT = 7  # digits of a commit


class NotInCache(InputError):
    """DVC's cache no longer has what an experiment made."""


class Finished(Protocol):
    """What a table is made of: an experiment of DVC's, or a run that is kept in git. params: by dotted key."""

    @property
    def commit(self) -> str: ...

    @property
    def params(self) -> dict[str, Any]: ...

    def matches(self, params: dict[str, Any]) -> bool: ...

    def ranks(self, system: str) -> pl.DataFrame | None: ...

    def epochs(self, system: str) -> int: ...


@dataclass(frozen=True)
class Experiment:
    """An experiment of DVC's. commit: whose code it ran; params: by dotted key."""

    name: str
    commit: str
    params: dict[str, Any]
    files: dvc.api.DVCFileSystem

    def ranks(self, system: str) -> pl.DataFrame | None:
        """The system's ranks of the test items, or None when the experiment has none. Raises NotInCache."""
        path = f"artifacts/ranks/{system}.parquet"
        if not self.files.exists(path):
            return None
        try:
            with self.files.open(path, "rb") as file:
                frame = pl.read_parquet(file)
        except FileNotFoundError as error:
            raise NotInCache(
                f"{path} of {self.name} is not in DVC's cache: `dvc repro` makes the commit's own again, "
                f"`dvc exp remove {self.name}` drops an experiment"
            ) from error
        return frame if len(frame) else None  # a system that was skipped has no rows

    def epochs(self, system: str) -> int:
        """How many epochs its training took; SICSRec's second step for `sicsrec`, 0 for what is only counted."""
        if system == OURS:
            path, section = "metrics/training.json", "posttrain"
        else:
            path, section = f"metrics/baselines/{system}.json", "training"
        with self.files.open(path) as file:
            return int(json.load(file)[section].get("epochs", 0))

    def matches(self, params: dict[str, Any]) -> bool:
        """Whether it was run with these."""
        return matches(self.params, params)


def matches(params: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether the params have the wanted values: a string is a pattern, a list has no order."""
    return all(key in params and _same(params[key], value) for key, value in wanted.items())


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, str):
        return fnmatchcase(str(value), wanted)
    if isinstance(wanted, list):
        return isinstance(value, list) and sorted(map(str, value)) == sorted(map(str, wanted))
    return bool(value == wanted)


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    values: dict[str, Any] = {}
    for key, value in content.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return values


def finished_experiments(all_commits: bool) -> list[Experiment]:
    """The commit's own result, then its experiments, newest first; of every commit when asked."""
    try:
        shown = dvc.api.exp_show(num=-1 if all_commits else 1)
    except DvcException as error:
        raise InputError(f"DVC cannot list the experiments here: {error}") from error
    experiments, commit = [], ""
    for row in shown:
        if row["rev"] == "workspace" or row["State"] not in (None, "Success"):
            continue
        revision = row["Experiment"] or row["rev"]
        files = dvc.api.DVCFileSystem(".", rev=revision)
        if not row["Experiment"]:  # DVC shows a commit, then its experiments
            commit = files.repo.scm.resolve_rev(revision)[:SHORT]
        with files.open("params.yaml") as file:
            experiments.append(Experiment(revision, commit, flat(YAML(typ="safe").load(file)), files))
    return experiments


def chosen(
    experiments: Sequence[Finished], rows: tuple[Row, ...], where: dict[str, Any], params: dict[str, Any]
) -> dict[str, list[Finished]]:
    """Each row's experiments. Where those differ in what no row varies, the ones with the value of `params` count.

    params: of the workspace, by dotted key. Raises InputError when none has that value.
    """
    fitting = [experiment for experiment in experiments if experiment.matches(where)]
    used = [experiment for experiment in fitting if any(experiment.matches(row.params) for row in rows)]
    ignored = NOT_COMPARED | {key for row in rows for key in row.params}
    keys = [key for key in params if key not in ignored]
    for key in keys:
        ours = [experiment for experiment in used if experiment.params.get(key) == params[key]]
        if ours and len(ours) < len(used):
            print(f"as in params.yaml: {key}={params[key]}", file=sys.stderr)
            used = ours
    for key in keys:
        if len(values := {str(experiment.params.get(key)) for experiment in used}) > 1:
            raise InputError(
                f"{len(used)} experiments differ in {key} ({', '.join(sorted(values))}) and none is as params.yaml: "
                f"say which you mean, as {key}=VALUE"
            )
    return {row.name: [experiment for experiment in used if experiment.matches(row.params)] for row in rows}
