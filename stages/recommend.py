"""Recommend with the trained model.

`python -m stages.recommend --history v12 v9 --top 10` shows what one user should see next, `--similar v12` what is like
an item, `python -m stages.recommend --users all --top 100 --out recommendations.parquet` writes a file for everybody.
`--new-items FOLDER` adds items that arrived after training to each of these. `--system NAME` recommends with another
trained system than SICSRec, `--system fused` with the sum of those in `fuse`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import polars as pl

from stages.data.columns import Wanted
from stages.errors import InputError, run_stage
from stages.files import read_json, read_parquet
from stages.params import Params, load_params
from stages.serving.arguments import parse_arguments
from stages.serving.explaining import Explanation, explain
from stages.serving.printing import show
from stages.serving.recommendations import Choice, RecommendingSystem, recommend_items
from stages.serving.requests import Requests, all_users, listed_users, read_histories, single
from stages.serving.similar import similar_items
from stages.serving.trained import (
    ITEMS,
    MODELS,
    Trained,
    find_items,
    item_numbers,
    load_trained,
    refuse_other_dataset,
)
from stages.serving.writing import write_recommendations

SPLIT_FACTS = Path("metrics/split.json")

if TYPE_CHECKING:
    from PIL.Image import Image

    from stages.serving.new_items import NewItems


def read_requests(arguments: argparse.Namespace, params: Params) -> Requests:
    """The users of --users or --histories."""
    if arguments.users == "all":
        return all_users()
    from stages.data.source import readable  # requests, for a source on the net, takes half a second

    wanted, ignore_unknown = Wanted(**params.columns.model_dump()), arguments.ignore_unknown
    if arguments.histories:
        with readable(str(arguments.histories), "--histories"):
            return read_histories(arguments.histories, read_parquet(ITEMS), wanted, ignore_unknown=ignore_unknown)
    with readable(arguments.users, "--users"):
        return listed_users(Path(arguments.users), wanted, ignore_unknown=ignore_unknown)


def read_new(arguments: argparse.Namespace, params: Params, spool: Path) -> NewItems | None:
    """The items of --new-items. spool: an empty folder that lasts as long as they are used."""
    if not arguments.new_items:
        return None
    from stages.serving.new_items import read_new_items  # requests, for a source on the net, takes half a second

    wanted = Wanted(**params.columns.model_dump())
    return read_new_items(arguments.new_items, read_parquet(ITEMS), params.dataset, wanted, spool)


def load(system: str, params: Params, new: NewItems | None) -> Trained:
    """A trained SICSRec, one of MODELS, with the new items if there are any."""
    trained = load_trained(params.device, MODELS[system], params.precision)
    if new is None:
        return trained
    from stages.serving.extending import with_new_items

    return with_new_items(trained, new, params)


def load_system(arguments: argparse.Namespace, params: Params, new: NewItems | None) -> RecommendingSystem:
    """The system of --system."""
    if arguments.system in MODELS:
        return load(arguments.system, params, new)
    from stages.serving.systems import load_other_system

    return load_other_system(arguments.system, params)


def answer(arguments: argparse.Namespace, params: Params, choice: Choice, new: NewItems | None) -> pl.DataFrame:
    """What --history or --similar asks for: rank, raw_id, title, score, and the columns of `explain`."""
    if arguments.similar:
        number = item_numbers(all_items(new), [arguments.similar], "--similar")[0]
        trained = load(arguments.system, params, new)
        rows = similar_items(trained, number, by=arguments.by, top=choice.top)
    else:
        refuse_new_in_history(arguments.history, new)
        numbers = item_numbers(read_parquet(ITEMS), arguments.history, "--history")
        system = load_system(arguments, params, new)
        rows = recommend_items(system, single(numbers), choice).drop("user", "basis")
        if arguments.explain:
            assert isinstance(system, Trained)  # no other has --explain, see arguments.py
            explanation = explain(system, numbers, rows)
            rows = explanation.rows
            if arguments.picture:
                draw(explanation, system, params, new, arguments.picture)
    titles = all_items(new).select(item="raw_id", title=f"title_{params.language}")
    rows = rows.join(titles, on="item", how="left", maintain_order="left")
    return rows.select("rank", raw_id="item", title="title").hstack(rows.drop("rank", "item", "title"))


def refuse_new_in_history(history: list[str], new: NewItems | None) -> None:
    """Raise InputError when a history has one of the new items, which the model has not learned to read."""
    unread = [] if new is None else [raw_id for raw_id in history if raw_id in set(new.items["raw_id"])]
    if unread:
        raise InputError(
            f"--history: {', '.join(unread)} of --new-items: new items can be recommended, not read: leave them out"
        )


def draw(explanation: Explanation, trained: Trained, params: Params, new: NewItems | None, path: Path) -> None:
    """Write the picture of --picture."""
    from stages.encoders.covers import CoverArchive
    from stages.pictures.explanation import draw_explanation

    known = CoverArchive(Path(f"artifacts/raw/{params.dataset}_cover.zip"))

    def cover_of(raw_id: str) -> Image | None:
        return (new.covers if new and raw_id in new.covers else known).get(raw_id)

    draw_explanation(explanation, trained.items, cover_of, f"title_{params.language}", path)


def all_items(new: NewItems | None) -> pl.DataFrame:
    """The rows of items.parquet, and of the new items after them."""
    known = read_parquet(ITEMS)
    return known if new is None else pl.concat([known, new.items])


def main() -> None:
    arguments, params = parse_arguments(__doc__), load_params()
    with TemporaryDirectory() as spool:
        run(arguments, params, read_new(arguments, params, Path(spool)))


def run(arguments: argparse.Namespace, params: Params, new: NewItems | None) -> None:
    """Do what the arguments ask for."""
    refuse_other_dataset(params.dataset)
    if arguments.titles:
        found = find_items(all_items(new), arguments.titles, f"title_{params.language}")
        if found.is_empty():
            print(f"--titles: no title has {' '.join(arguments.titles)}", file=sys.stderr)
        return show(found[: arguments.top], arguments.json)
    choice = Choice(
        top=arguments.top, keep_viewed=arguments.keep_viewed, popular=arguments.without_history != "nothing"
    )
    if arguments.history or arguments.similar:
        return show(answer(arguments, params, choice, new), arguments.json, header=arguments.explain)
    requests = read_requests(arguments, params)
    dropped = read_json(SPLIT_FACTS)["dropped"]["short_users"] if arguments.users == "all" else 0
    count = write_recommendations(arguments.out, load_system(arguments, params, new), requests, choice)
    print(f"{arguments.out}: {count:,} recommendations for {len(requests.users):,} users")
    if dropped:
        print(
            f"{dropped:,} users are not among them, as they have fewer than split.min_interactions: --histories FILE "
            "recommends to anybody"
        )
    return None


if __name__ == "__main__":
    run_stage(main, options=True)
