"""One table or figure of the paper from this commit's experiments: `python -m stages.tables table7 dataset=Bili_Food`.

Where experiments differ in something that the table does not compare, those count that were run as params.yaml says,
or as KEY=VALUE says. What they measured is kept in `metrics/runs/`, and counts in later tables where no experiment has
the same params and seed.
"""

import argparse
from pathlib import Path
from typing import Any

import polars as pl
from ruamel.yaml import YAML

from stages.errors import InputError, run_stage
from stages.files import atomic, write_json
from stages.params import load_params
from stages.tables.archive import archive_run, archived_runs
from stages.tables.experiments import Finished, chosen, finished_experiments, flat
from stages.tables.markdown import TESTED
from stages.tables.rows import TABLES
from stages.tables.summary import as_markdown, build, one_a_seed, read_runs

FOLDER = Path("metrics/tables")
ARCHIVE = Path("metrics/runs")
FIGURES = Path("metrics/figures")


def conditions(pairs: list[str]) -> dict[str, Any]:
    """`["alpha=0.3"]` → `{"alpha": 0.3}`, values as in params.yaml."""
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise InputError(f"{wrong[0]}: conditions are KEY=VALUE")
    return {key: YAML(typ="safe").load(value) for key, value in (pair.split("=", 1) for pair in pairs)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.tables", description=__doc__)
    parser.add_argument("name", choices=TABLES)
    parser.add_argument("where", nargs="*", metavar="KEY=VALUE", help="which experiments are meant")
    parser.add_argument("--all-commits", action="store_true", help="also the experiments of other commits")
    parser.add_argument("--fresh", action="store_true", help=f"leave out what {ARCHIVE}/ keeps")
    options = parser.parse_args()
    table, params = TABLES[options.name], load_params()

    experiments: list[Finished] = [*finished_experiments(options.all_commits)]
    experiments += [] if options.fresh else archived_runs(ARCHIVE)
    ours = flat(YAML(typ="safe").load(Path("params.yaml")))
    found = chosen(experiments, table.rows, conditions(options.where), ours)
    datasets = {experiment.params["dataset"] for group in found.values() for experiment in group}
    if not datasets:
        raise InputError(
            f"no finished experiment fits {options.name} {' '.join(options.where)}: see stages/tables/README.md"
        )
    dataset = datasets.pop()
    used = [(row, one_a_seed(found[row.name], row.system)) for row in table.rows]
    runs = {row.name: read_runs(group, row.system) for row, group in used}
    result = build(table, options.name, dataset, runs, params.evaluate.bootstrap, params.seed)

    for row, group in used:
        for experiment in group:
            archive_run(experiment, row.system, ARCHIVE)
    write_json(FOLDER / f"{options.name}_{dataset}.json", result)
    with atomic(FOLDER / f"{options.name}_{dataset}.md") as temporary:
        temporary.write_text(as_markdown(result), encoding="utf-8")
    lines = [
        {"row": name, "protocol": protocol, TESTED: row[protocol][TESTED]["mean"]}
        for protocol in ("kept", "filtered")
        for name, row in result["rows"].items()
    ]
    with atomic(FIGURES / f"{options.name}_{dataset}.csv") as temporary:
        pl.DataFrame(lines).write_csv(temporary)
    print(as_markdown(result))


if __name__ == "__main__":
    run_stage(main)
