"""A table or figure of the paper from this commit's experiments: `python -m stages.tables table7 dataset=Bili_Food`.

If the experiments also differ in a param that the table does not compare, those with the value of params.yaml are used,
or those that meet KEY=VALUE. Their ranks are archived in `metrics/runs/`; a later table reads the archive for rows and
seeds of which no experiment is there.
"""

import argparse
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.errors import InputError, run_stage
from stages.files import atomic, read_json, write_json
from stages.params import load_params
from stages.shallow_clone import MEND, is_shallow
from stages.tables.archive import archive_run, archived_runs
from stages.tables.experiments import FinishedRun, choose_runs, finished_experiments, flatten
from stages.tables.figures import write_figure
from stages.tables.origins import gathering_command
from stages.tables.registry import ALL_TABLES
from stages.tables.searched import with_best_params
from stages.tables.summary import as_markdown, one_run_per_seed, read_runs, summarise

FOLDER = Path("metrics/tables")
ARCHIVE = Path("metrics/runs")


def parse_conditions(pairs: list[str]) -> dict[str, Any]:
    """`["alpha=0.3"]` → `{"alpha": 0.3}`; values are YAML, as in params.yaml."""
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise InputError(f"{wrong[0]}: a condition is written KEY=VALUE, e.g. alpha=0.3")
    return dict(map(_parse_condition, pairs))


def _parse_condition(pair: str) -> tuple[str, Any]:
    key, value = pair.split("=", 1)
    try:
        return key, YAML(typ="safe").load(value)
    except (YAMLError, ValueError) as error:  # ValueError: of a date such as 2024-13-01
        raise InputError(
            f"{pair}: the value is not YAML: write it as in params.yaml, e.g. modalities=[id,text]"
        ) from error


def write_table(result: dict[str, Any], name: str) -> None:
    """Write the table as JSON and Markdown, and the values that `dvc plots` draws."""
    write_json(FOLDER / f"{name}.json", result)
    with atomic(FOLDER / f"{name}.md") as temporary:
        temporary.write_text(as_markdown(result), encoding="utf-8")
    write_figure(result)


def refuse_to_lose_runs(result: dict[str, Any], path: Path) -> None:
    """Raise InputError when the table at `path` was made with other conditions, or has a row or a seed more.

    The runs of such a row or seed are not at hand. A table that does not say its conditions may have had any.
    """
    if not path.is_file():
        return
    old = read_json(path)
    if old.get("where", result["where"]) != result["where"]:
        raise InputError(
            f"{path} was made by `{gathering_command(result['table'], old)}`: give the same conditions, or remove the "
            "file"
        )
    before, now = (
        {(row, seed) for row, values in content["rows"].items() for seed in values["seeds"]}
        for content in (old, result)
    )
    if lost := sorted(before - now):
        row, seed = lost[0]
        raise InputError(
            f"{path} has {len(lost)} runs that are neither archived nor finished here (first: {row}, seed {seed}): run "
            "them, or remove the file"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.tables", description=__doc__)
    parser.add_argument("name", choices=ALL_TABLES)
    parser.add_argument("where", nargs="*", metavar="KEY=VALUE", help="use only experiments with this value")
    parser.add_argument("--all-commits", action="store_true", help="also the experiments of other commits")
    parser.add_argument("--fresh", action="store_true", help=f"do not read the archive {ARCHIVE}/")
    options = parser.parse_intermixed_args()  # options may stand between the conditions
    params, where = load_params(), parse_conditions(options.where)
    table = with_best_params(ALL_TABLES[options.name], where.get("dataset", params.dataset))

    experiments: list[FinishedRun] = [*finished_experiments(options.all_commits)]
    experiments += [] if options.fresh else archived_runs(ARCHIVE)
    current = flatten(YAML(typ="safe").load(Path("params.yaml")))
    found = choose_runs(experiments, table.rows, where=where, params=current)
    datasets = {experiment.params["dataset"] for group in found.values() for experiment in group}
    if not datasets:
        advice = f"this is a shallow clone: {MEND}" if is_shallow(Path()) else "see stages/tables/README.md"
        raise InputError(f"no finished experiment fits {options.name} {' '.join(options.where)}: {advice}")
    dataset = datasets.pop()
    used = [(row, one_run_per_seed(found[row.name], row.system)) for row in table.rows]
    runs = {row.name: read_runs(group, row.system) for row, group in used}
    result = summarise(
        table, runs, name=options.name, dataset=dataset, resamples=params.evaluate.bootstrap, seed=params.seed
    )
    result["where"] = {"dataset": dataset} | dict(pair.split("=", 1) for pair in options.where)

    refuse_to_lose_runs(result, FOLDER / f"{options.name}_{dataset}.json")
    for row, group in used:
        for experiment in group:
            archive_run(experiment, row.system, ARCHIVE)
    write_table(result, f"{options.name}_{dataset}")
    print(as_markdown(result))


if __name__ == "__main__":
    run_stage(main, options=True)
