"""Rows of systems that were tuned: their params are those that `stages.search` found best on validation."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from stages.errors import InputError
from stages.files import read_json
from stages.tables.registry import Row, Table

SEARCHES = Path("metrics/search")

Search = dict[str, Any]  # as search.py writes it


def with_best_params(table: Table, dataset: str) -> Table:
    """The table with the best params of each searched row's system on the dataset; rows without a search are left out.

    Raises InputError when no searched row has a search, when one was judged by another metric than the table's, or when
    the systems were searched by different numbers of trials.
    """
    if not any(row.searched for row in table.rows):
        return table
    searches = {row.system: read_json(path) for row in table.rows if (path := _path(row, dataset)).is_file()}
    if not searches:
        systems = ", ".join(row.system for row in table.rows)
        raise InputError(
            f"{SEARCHES} has no search of {systems} on {dataset}: run `python -m stages.search SYSTEM --trials 12`"
        )
    trials = {system: len(search["trials"]) for system, search in searches.items()}
    if fewer := [system for system, count in trials.items() if count < max(trials.values())]:
        raise InputError(
            f"{fewer[0]} was searched by {trials[fewer[0]]} trials, others by more: run `python -m stages.search "
            f"{fewer[0]} --trials {max(trials.values())}`"
        )
    rows = [_with_best(row, searches[row.system]) for row in table.rows if row.system in searches]
    return replace(table, rows=tuple(rows))


def _path(row: Row, dataset: str) -> Path:
    return SEARCHES / f"{row.system}_{dataset}.json"


def _with_best(row: Row, search: Search) -> Row:
    if search["monitor"] != row.params["monitor"]:
        raise InputError(
            f"{_path(row, search['dataset'])} was judged by {search['monitor']}: search again with "
            f"monitor={row.params['monitor']} in params.yaml"
        )
    return replace(row, params=row.params | search["best"])
