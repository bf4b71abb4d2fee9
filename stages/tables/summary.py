"""A table of the paper over several seeds: means, deviations, paired tests, and the values that the paper reports.

`python -m stages.tables` writes it to metrics/tables/. The comparison of one run is another file: see comparison.py.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from stages.errors import InputError
from stages.rank_files import PROTOCOLS
from stages.tables.archive import COUNT
from stages.tables.experiments import FinishedRun, NotInCache
from stages.tables.groups import metrics_by_count
from stages.tables.markdown import SIGNIFICANT, TESTED, p_cell
from stages.tables.paper import paper_values
from stages.tables.registry import Table
from stages.training.metrics import per_user_metrics
from stages.training.statistics import holm, interval, paired_p_value

UserMetrics = dict[str, np.ndarray]  # {metric: (users,)}
Groups = dict[str, dict[str, float]]  # {group: {users, metrics}}


@dataclass
class Runs:
    """The runs of a row. metrics: {protocol: {seed: of each user}}; epochs: {seed: trained}; commits: of their code.

    splits: {seed: id of the data}, None for a run older than such ids. by_count: {protocol: {seed: see
    metrics_by_count}}, without the runs that are older than the column.
    """

    metrics: dict[str, dict[int, UserMetrics]] = field(default_factory=lambda: {protocol: {} for protocol in PROTOCOLS})
    epochs: dict[int, int] = field(default_factory=dict)
    commits: set[str] = field(default_factory=set)
    splits: dict[int, str | None] = field(default_factory=dict)
    by_count: dict[str, dict[int, Groups]] = field(default_factory=lambda: {protocol: {} for protocol in PROTOCOLS})


def one_run_per_seed(experiments: Iterable[FinishedRun], system: str) -> list[FinishedRun]:
    """The first experiment of each seed that has the system's ranks, sorted by seed so that sums have one order.

    Raises NotInCache when the ranks of a seed are in no experiment's cache and not archived.
    """
    found: dict[int, FinishedRun] = {}
    gone: dict[int, NotInCache] = {}
    for experiment in experiments:
        seed = experiment.params["seed"]
        try:
            if seed not in found and experiment.ranks(system) is not None:
                found[seed] = experiment
        except NotInCache as error:  # another run of that seed may be archived
            gone[seed] = error
    for seed in gone.keys() - found.keys():
        raise gone[seed]
    return [found[seed] for seed in sorted(found)]


def read_runs(experiments: Iterable[FinishedRun], system: str) -> Runs:
    """The runs of a row. experiments: one per seed, each with the system's ranks."""
    runs = Runs()
    for experiment in experiments:
        seed, frame = experiment.params["seed"], experiment.ranks(system)
        assert frame is not None, f"one_run_per_seed chose a run without ranks of {system}"
        for protocol, column in PROTOCOLS.items():
            ranks = frame[column].to_numpy()
            runs.metrics[protocol][seed] = per_user_metrics(ranks)
            if COUNT in frame.columns:
                runs.by_count[protocol][seed] = metrics_by_count(ranks, frame[COUNT].to_numpy())
        runs.epochs[seed] = experiment.epochs(system)
        runs.commits.add(experiment.commit)
        runs.splits[seed] = experiment.split(system)
    return runs


def summarise(
    table: Table, runs: dict[str, Runs], *, name: str, dataset: str, resamples: int, seed: int
) -> dict[str, Any]:
    """The table as JSON. runs: by row; a row without runs is left out and listed under "missing"."""
    present = {row: found for row, found in runs.items() if found.epochs}
    _check_same_data(present, dataset)
    falls_back = table.reference not in present and table.fallback_reference in present
    reference = table.fallback_reference if falls_back else table.reference
    rows: dict[str, dict[str, Any]] = {
        row: {"seeds": sorted(found.epochs), "epochs": float(np.mean(list(found.epochs.values())))}
        for row, found in present.items()
    }
    for protocol in PROTOCOLS:
        pairs = _paired(present, protocol, reference)
        tested = holm([paired_p_value(*pair, resamples=resamples, seed=seed) for pair in pairs.values()])
        p_values = dict(zip(pairs, tested, strict=True))
        for row, found in present.items():
            rows[row][protocol] = {
                metric: _mean_and_deviation([values[metric].mean() for values in found.metrics[protocol].values()])
                for metric in table.metrics
            }
            if row in p_values:
                rows[row][protocol]["p"] = p_values[row]
                rows[row][protocol]["difference"] = _relative_interval(*pairs[row], resamples=resamples, seed=seed)
            if found.by_count[protocol]:
                rows[row][protocol]["by_training_count"] = _mean_groups([*found.by_count[protocol].values()])
    for row in rows:
        rows[row]["paper"] = paper_values(name, dataset, row)
    missing = [row for row in runs if row not in present]
    return {
        "table": name, "title": table.title, "dataset": dataset, "metrics": list(table.metrics),
        "reference": reference, "rows": rows, "missing": missing,
        "commits": sorted(set().union(*(found.commits for found in present.values()))),
    }  # fmt: skip


def _check_same_data(runs: dict[str, Runs], dataset: str) -> None:
    """Raise InputError when runs of one seed were ranked on different versions of the dataset."""
    first: dict[int, tuple[str, str]] = {}  # of each seed: a row, and its split
    for row, found in runs.items():
        for seed, split in found.splits.items():
            if split is not None and first.setdefault(seed, (row, split))[1] != split:
                raise InputError(
                    f"{row} and {first[seed][0]}, seed {seed}, were ranked on different versions of {dataset}: run the "
                    f"older one again, or remove its file from metrics/runs/{dataset}"
                )


def _mean_and_deviation(values: list[float]) -> dict[str, float | None]:
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def _mean_groups(of_seeds: list[Groups]) -> Groups:
    """Each group's values, averaged over the seeds that have the group: the sample has other targets with each seed."""
    found: Groups = {}
    for group in dict.fromkeys(name for groups in of_seeds for name in groups):
        values = [groups[group] for groups in of_seeds if group in groups]
        found[group] = {name: float(np.mean([each[name] for each in values])) for name in values[0]}
    return found


def _paired(
    present: dict[str, Runs], protocol: str, reference: str
) -> dict[str, tuple[Float[np.ndarray, " users"], Float[np.ndarray, " users"]]]:
    """The tested metric of each user under the reference and under each other row, over the seeds that both have."""
    if reference not in present:
        return {}
    pairs = {}
    for row, found in present.items():
        by_seed = present[reference].metrics[protocol], found.metrics[protocol]
        if row == reference or not (both := sorted(by_seed[0].keys() & by_seed[1].keys())):
            continue
        of_reference, of_row = (_mean_over_seeds(metrics, both) for metrics in by_seed)
        if len(of_reference) != len(of_row):
            raise InputError(f"{row} and {reference} were not ranked for the same users: run both again on one split")
        pairs[row] = (of_reference, of_row)
    return pairs


def _relative_interval(
    of_reference: Float[np.ndarray, " users"], of_row: Float[np.ndarray, " users"], *, resamples: int, seed: int
) -> list[float] | None:
    """95 % interval of a row's mean difference from the reference, as a share of the reference's mean."""
    mean = of_reference.mean()
    bounds = interval(of_row - of_reference, resamples=resamples, seed=seed)
    return [bound / mean for bound in bounds] if mean else None


def _mean_over_seeds(metrics: dict[int, UserMetrics], seeds: list[int]) -> np.ndarray:
    """The tested metric of each user. → (users,)."""
    if len({len(metrics[seed][TESTED]) for seed in seeds}) > 1:
        raise InputError(f"seeds {seeds} were ranked for different numbers of users: run them again on one split")
    return np.mean([metrics[seed][TESTED] for seed in seeds], axis=0)


def as_markdown(table: dict[str, Any]) -> str:
    """The table in Markdown."""
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
        cells += [
            f"{ours / paper[TESTED] - 1:+.1%}" if TESTED in paper else "",
            f"{row['epochs']:.0f}" + _paper_epochs(paper),
        ]
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


def _paper_epochs(paper: dict[str, float]) -> str:
    return f" (paper: {paper['epochs']:.0f})" if "epochs" in paper else ""
