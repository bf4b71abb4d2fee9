"""A table of the paper from finished experiments: means over seeds, the paper's values, which differences are sure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stages.errors import InputError
from stages.tables.experiments import Finished, NotInCache
from stages.tables.markdown import SIGNIFICANT, TESTED, p_cell
from stages.tables.paper import paper_values
from stages.tables.rows import Table
from stages.training.metrics import per_user_metrics
from stages.training.statistics import holm, paired_p_value

PROTOCOLS = {"kept": "rank", "filtered": "rank_filtered"}  # viewed items kept (the paper's), or left out

Gains = dict[str, np.ndarray]  # {metric: (users,)}


@dataclass
class Runs:
    """A row's runs. gains: {protocol: {seed: metrics of each user}}; epochs: {seed: of the second training step}.

    commits: whose code they ran.
    """

    gains: dict[str, dict[int, Gains]] = field(default_factory=lambda: {protocol: {} for protocol in PROTOCOLS})
    epochs: dict[int, int] = field(default_factory=dict)
    commits: set[str] = field(default_factory=set)


def one_a_seed(experiments: Iterable[Finished], system: str) -> list[Finished]:
    """Of the experiments that have the system's ranks the first of each seed, by seed: sums are in one order then.

    Raises NotInCache when the ranks of a seed are nowhere but should be.
    """
    found: dict[int, Finished] = {}
    gone: dict[int, NotInCache] = {}
    for experiment in experiments:
        seed = experiment.params["seed"]
        try:
            if seed not in found and experiment.ranks(system) is not None:
                found[seed] = experiment
        except NotInCache as error:  # another run of that seed may be kept
            gone[seed] = error
    for seed in gone.keys() - found.keys():
        raise gone[seed]
    return [found[seed] for seed in sorted(found)]


def read_runs(experiments: Iterable[Finished], system: str) -> Runs:
    """What a row is made of. experiments: one a seed, with the system's ranks."""
    runs = Runs()
    for experiment in experiments:
        seed, frame = experiment.params["seed"], experiment.ranks(system)
        for protocol, column in PROTOCOLS.items():
            runs.gains[protocol][seed] = per_user_metrics(frame[column].to_numpy())
        runs.epochs[seed] = experiment.epochs(system)
        runs.commits.add(experiment.commit)
    return runs


def build(table: Table, name: str, dataset: str, runs: dict[str, Runs], resamples: int, seed: int) -> dict[str, Any]:
    """The table as JSON. runs: of each row; a row without runs is left out and named under "missing"."""
    present = {row: found for row, found in runs.items() if found.epochs}
    stands_in = table.reference not in present and table.stand_in in present
    reference = table.stand_in if stands_in else table.reference
    rows: dict[str, dict[str, Any]] = {
        row: {"seeds": sorted(found.epochs), "epochs": float(np.mean(list(found.epochs.values())))}
        for row, found in present.items()
    }
    for protocol in PROTOCOLS:
        p_values = _p_values(present, protocol, reference, resamples, seed)
        for row, found in present.items():
            rows[row][protocol] = {
                metric: _mean_and_deviation([gains[metric].mean() for gains in found.gains[protocol].values()])
                for metric in table.metrics
            }
            if row in p_values:
                rows[row][protocol]["p"] = p_values[row]
    for row in rows:
        rows[row]["paper"] = paper_values(name, dataset, row)
    missing = [row for row in runs if row not in present]
    return {
        "table": name, "title": table.title, "dataset": dataset, "metrics": list(table.metrics),
        "reference": reference, "rows": rows, "missing": missing,
        "commits": sorted(set().union(*(found.commits for found in present.values()))),
    }  # fmt: skip


def _mean_and_deviation(values: list[float]) -> dict[str, float | None]:
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def _p_values(present: dict[str, Runs], protocol: str, reference: str, resamples: int, seed: int) -> dict[str, float]:
    """Of each row against the reference, over the seeds that both have, corrected for their number."""
    if reference not in present:
        return {}
    others = {}
    for row, found in present.items():
        theirs, own = found.gains[protocol], present[reference].gains[protocol]
        if row == reference or not (both := sorted(theirs.keys() & own.keys())):
            continue
        left, right = (_mean_over_seeds(gains, both) for gains in (own, theirs))
        if len(left) != len(right):
            raise InputError(f"{row} and {reference} were not ranked for the same users")
        others[row] = paired_p_value(left, right, resamples=resamples, seed=seed)
    return dict(zip(others, holm(list(others.values())), strict=True))


def _mean_over_seeds(gains: dict[int, Gains], seeds: list[int]) -> np.ndarray:
    if len({len(gains[seed][TESTED]) for seed in seeds}) > 1:
        raise InputError("seeds with different numbers of users cannot be averaged user by user")
    return np.mean([gains[seed][TESTED] for seed in seeds], axis=0)


def as_markdown(table: dict[str, Any]) -> str:
    """The table to read."""
    return "\n".join(_lines(table)) + "\n"


def _lines(table: dict[str, Any]) -> Iterator[str]:
    metrics = table["metrics"]
    heads = [
        "row", "seeds", *metrics, "p", *(f"paper's {metric}" for metric in metrics), "difference", "epochs",
        *(f"filtered {metric}" for metric in metrics), "p",
    ]  # fmt: skip
    yield f"# {table['title']}, {table['dataset']}"
    yield ""
    yield "| " + " | ".join(heads) + " |"
    yield "| --- | " + " | ".join(["---:"] * (len(heads) - 1)) + " |"
    for name, row in table["rows"].items():
        paper = row["paper"] or {}
        ours = row["kept"][TESTED]["mean"]
        cells = [name, str(len(row["seeds"])), *_cells(row["kept"], metrics)]
        cells += [f"{paper[metric]:.4f}" if metric in paper else "" for metric in metrics]
        cells += [f"{ours / paper[TESTED] - 1:+.1%}" if TESTED in paper else "", f"{row['epochs']:.0f}" + _of(paper)]
        yield "| " + " | ".join([*cells, *_cells(row["filtered"], metrics)]) + " |"
    yield ""
    if table["missing"]:
        yield f"Not run: {', '.join(table['missing'])}."
        yield ""
    yield f"Run by the code of {', '.join(table['commits'])}."
    yield ""
    yield (
        f"Mean ± deviation over seeds. Difference: of {TESTED} from the paper's, which keeps viewed items. "
        f"p: this row and {table['reference']} have the same {TESTED}; paired randomisation test over users "
        f"(means over the seeds), Holm's correction over the rows. "
        f"What is not bold (below {SIGNIFICANT}) is not supported."
    )


def _cells(values: dict[str, Any], metrics: list[str]) -> list[str]:
    cells = []
    for metric in metrics:
        mean, deviation = values[metric]["mean"], values[metric]["sd"]
        cells.append(f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}")
    return [*cells, p_cell(values.get("p"))]


def _of(paper: dict[str, float]) -> str:
    return f" (paper: {paper['epochs']:.0f})" if "epochs" in paper else ""
