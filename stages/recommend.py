"""Recommend with the trained model: `python -m stages.recommend --history v12 v9 --top 10`."""

import argparse
import json
from pathlib import Path

import polars as pl

from stages.errors import InputError, run_stage
from stages.files import read_parquet
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.parallel.device import choose_device
from stages.params import load_params
from stages.provenance import check_inputs
from stages.training.checkpoints import load_model
from stages.training.recommending import best_items

ITEMS = Path("artifacts/split/items.parquet")
MODEL = Path("artifacts/sicsrec.safetensors")


def find_items(items: pl.DataFrame, words: list[str], title: str) -> pl.DataFrame:
    """The items whose title contains all the words, ignoring case. title: a column of items. → raw_id, title."""
    lowered = pl.col(title).str.to_lowercase()
    has_all = pl.all_horizontal(lowered.str.contains(word.lower(), literal=True) for word in words)
    return items.filter(has_all).select("raw_id", title=title)


def item_numbers(items: pl.DataFrame, raw_ids: list[str]) -> list[int]:
    """The item numbers of raw ids, in the same order. Raises InputError that names the unknown ids."""
    number = dict(items.select("raw_id", "item").iter_rows())
    if unknown := [raw_id for raw_id in raw_ids if raw_id not in number]:
        raise InputError(f"--history: {ITEMS} has no {', '.join(unknown)}: find ids with --titles WORD")
    return [number[raw_id] for raw_id in raw_ids]


def recommend(
    model: Sicsrec, items: pl.DataFrame, history: list[int], *, top: int, viewed: bool, title: str
) -> pl.DataFrame:
    """The `top` items with the highest scores after a history. → rank, raw_id, title, score.

    history: item numbers, oldest first. viewed: whether its items may be recommended again. title: a column of items.
    """
    device = model.position_embedding.weight.device
    numbers, scores = best_items(
        model, history, top=top, viewed=viewed, max_length=model.config.max_length, device=device
    )
    chosen = items[[number - 1 for number in numbers]].select("raw_id", title=title)
    return chosen.with_columns(score=pl.Series(scores)).with_row_index("rank", offset=1)


def show(frame: pl.DataFrame, as_json: bool) -> None:
    """Print the rows as JSON or as tab-separated text."""
    if as_json:
        print(json.dumps(frame.to_dicts(), ensure_ascii=False, indent=2))
        return
    for row in frame.iter_rows(named=True):
        print("\t".join(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--history", nargs="+", metavar="ID", help="raw item ids, oldest first")
    task.add_argument("--titles", nargs="+", metavar="WORD", help="find raw ids by words of the title")
    parser.add_argument("--top", type=int, default=10)
    parser.add_argument("--viewed", action="store_true", help="recommend items of the history too")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    params = load_params()
    items, title = read_parquet(ITEMS), f"title_{params.language}"
    if arguments.titles:
        return show(find_items(items, arguments.titles, title), arguments.json)
    if arguments.top < 1:
        raise InputError(f"--top {arguments.top}: ask for one item or more")
    history = item_numbers(items, arguments.history)
    check_inputs(ITEMS, MODEL)
    model = load_model(MODEL, Sicsrec, SicsrecConfig).to(choose_device(params.device))
    frame = recommend(model, items, history, top=arguments.top, viewed=arguments.viewed, title=title)
    return show(frame, arguments.json)


if __name__ == "__main__":
    run_stage(main)
