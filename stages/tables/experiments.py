"""Finished DVC experiments: their params and output files, and which of them a table is made of."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Protocol

import dvc.api
import polars as pl
from dvc.exceptions import DvcException
from ruamel.yaml import YAML

from stages.errors import InputError
from stages.provenance import REFIT, split_id
from stages.tables.registry import OURS, Row

# Params in which the runs of one row may differ: they do not change what is learnt, or the table averages over them.
NOT_COMPARED = {
    "seed",
    "baselines",
    "all_systems",
    "baseline.absent",
    "source",
    "refit",
    "fuse",
    "distill",
    "launch",
    "device",
    "download.sha256",
    "openai.base_url",
    "openai.concurrency",
    "openai.timeout",
    "ollama.hosts",
    "ollama.concurrency",
    "ollama.timeout",
    "ollama.keep_alive",
    "encoders.workers",
    "evaluate.bootstrap",
}
OF_THE_SAMPLE = "download.sample_"  # begins the params of the built-in sample, which no other dataset reads
# Params that older runs lack: what they were run with.
ADDED = {
    "monitor": "ndcg@10",
    "content_weight": 0,
    "smoothing": 0,
    "precision": "auto",
    "distill": 0,
    "posttrain.content": "own",
    "sft.tau": None,
    "baseline.dropout": None,
    "split.strategy": "leave_one_out",
    "split.valid_from": 0.8,
    "split.test_from": 0.9,
}
OWN_EPOCHS = {  # of the pipeline's own systems: the file and its section
    OURS: ("metrics/training.json", "posttrain"),
    "id_encoder": ("metrics/training.json", "pretrain"),
    "sicsrec_refit": ("metrics/refit.json", "sicsrec"),
    "id_encoder_refit": ("metrics/refit.json", "id_encoder"),
    "fused": ("metrics/fuse.json", "weights"),  # without epochs: a sum is not trained
    "distilled": ("metrics/distill.json", "training"),
}
SHORT_HASH = 7  # digits of a commit


class NotInCache(InputError):
    """An output of an experiment is not in DVC's cache."""


@cache  # once for each commit, not for each of its systems
def _say_not_run(commit: str) -> None:
    print(f"{commit} was not run here, so that its own results do not count: `dvc repro`, then commit", file=sys.stderr)


class FinishedRun(Protocol):
    """A DVC experiment, or a run in the archive. params: by dotted key."""

    @property
    def commit(self) -> str: ...

    @property
    def params(self) -> dict[str, Any]: ...

    def matches(self, params: dict[str, Any]) -> bool:
        """Whether it was run with these params."""

    def ranks(self, system: str) -> pl.DataFrame | None:
        """The system's ranks of the test items, or None when the run has none."""

    def epochs(self, system: str) -> int:
        """How many epochs the system's training took; 0 for systems that only count."""

    def split(self, system: str) -> str | None:
        """Id of the split that the system was ranked on; None in runs that are older than such ids."""


@dataclass(frozen=True)
class Experiment:
    """A DVC experiment. commit: of the code that ran; params: by dotted key; is_commit: the commit's own run."""

    name: str
    commit: str
    params: dict[str, Any]
    files: dvc.api.DVCFileSystem
    is_commit: bool = False

    def ranks(self, system: str) -> pl.DataFrame | None:
        """The system's ranks of the test items, or None when the experiment has none. Raises NotInCache.

        training_count: how often the test item occurs in training.
        """
        path = f"artifacts/ranks/{system}.parquet"
        if not self.files.exists(path):
            return None
        if self.is_commit and not self._is_cached(path):
            _say_not_run(self.name)
            return None
        frame = self._read(path)
        if not len(frame):  # a skipped system has an empty file
            return None
        items, test = (self._read(f"artifacts/split/{name}.parquet") for name in ("items", "test"))
        return frame.with_columns(training_count=items["count"].gather(test["item"] - 1))

    def _is_cached(self, path: str) -> bool:
        try:
            with self.files.open(path, "rb"):
                return True
        except FileNotFoundError:
            return False

    def _read(self, path: str) -> pl.DataFrame:
        try:
            with self.files.open(path, "rb") as file:
                return pl.read_parquet(file)
        except FileNotFoundError as error:
            raise NotInCache(
                f"{path} of the experiment {self.name} is not in DVC's cache: remove it by `dvc exp remove "
                f"{self.name}` and run it again"
            ) from error

    def split(self, system: str) -> str | None:
        """Id of the split that the system was ranked on; None in experiments that are older than such ids."""
        with self.files.open(f"artifacts/ranks/{system}.parquet", "rb") as file:
            return split_id(pl.read_parquet_metadata(file))

    def epochs(self, system: str) -> int:
        """How many epochs its training took: of posttrain for `sicsrec`, 0 for systems that only count."""
        name = system.removesuffix(REFIT)
        section_of_baseline = "training" if name == system else "refit"
        path, section = OWN_EPOCHS.get(system, (f"metrics/baselines/{name}.json", section_of_baseline))
        with self.files.open(path) as file:
            return int(json.load(file)[section].get("epochs", 0))

    def matches(self, params: dict[str, Any]) -> bool:
        """Whether it was run with these params."""
        return matches(self.params, params)


def matches(params: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether the params have the wanted values: a string is a pattern (fnmatch), the order of a list is ignored."""
    params = ADDED | params
    return all(key in params and _same(params[key], value) for key, value in wanted.items())


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, str):
        return fnmatchcase(str(value), wanted)
    if isinstance(wanted, list):
        return isinstance(value, list) and sorted(map(str, value)) == sorted(map(str, wanted))
    return bool(value == wanted)


def is_compared(key: str, dataset: str) -> bool:
    """Whether the runs of one row must have the same value of this param."""
    return key not in NOT_COMPARED and (dataset == "sample" or not key.startswith(OF_THE_SAMPLE))


def _value(run: FinishedRun, key: str) -> Any:
    return run.params.get(key, ADDED.get(key))


def flatten(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys: `{"sft": {"epochs": 3}}` → `{"sft.epochs": 3}`."""
    values: dict[str, Any] = {}
    for key, value in content.items():
        values |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return values


def finished_experiments(all_commits: bool) -> list[Experiment]:
    """This commit's own run and its experiments, newest first; those of every commit if `all_commits`."""
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
            commit = files.repo.scm.resolve_rev(revision)[:SHORT_HASH]
        with files.open("params.yaml") as file:
            experiments.append(
                Experiment(revision, commit, flatten(YAML(typ="safe").load(file)), files, not row["Experiment"])
            )
    return experiments


def choose_runs(
    experiments: Sequence[FinishedRun], rows: tuple[Row, ...], *, where: dict[str, Any], params: dict[str, Any]
) -> dict[str, list[FinishedRun]]:
    """The experiments of each row. If they also differ in a param that no row sets, use those equal to params.yaml's.

    where: conditions that every experiment must meet; params: params.yaml by dotted key. A value that params.yaml does
    not have but all experiments do is printed. Raises InputError when the experiments differ in a param and none has
    the value of params.yaml.
    """
    fitting = [experiment for experiment in experiments if experiment.matches(where)]
    used = [experiment for experiment in fitting if any(experiment.matches(row.params) for row in rows)]
    of_rows, dataset = {key for row in rows for key in row.params}, where.get("dataset", params["dataset"])
    keys = [key for key in params if key not in of_rows and is_compared(key, dataset)]
    for key in keys:
        ours = [experiment for experiment in used if _value(experiment, key) == params[key]]
        if ours and len(ours) < len(used):
            print(f"as in params.yaml: {key}={params[key]}", file=sys.stderr)
            used = ours
    for key in keys:
        if len(values := {str(_value(experiment, key)) for experiment in used}) > 1:
            raise InputError(
                f"{len(used)} experiments differ in {key} ({', '.join(sorted(values))}), none as in params.yaml: "
                f"choose one by adding {key}=VALUE"
            )
        if key not in where and used and (value := _value(used[0], key)) != params[key]:
            print(f"not as in params.yaml: all with {key}={value}", file=sys.stderr)
    return {row.name: [experiment for experiment in used if experiment.matches(row.params)] for row in rows}
