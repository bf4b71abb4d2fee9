"""Recommend with the trained model.

`python -m stages.recommend --history v12 v9 --top 10` shows what one user should see next, `--similar v12` what is like
an item, `python -m stages.recommend --users all --top 100 --out recommendations.parquet` writes a file for everybody.
`--new-items FOLDER` adds items that arrived after training to each of these.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import polars as pl

from stages.data.columns import Wanted
from stages.errors import InputError, run_stage
from stages.files import read_parquet
from stages.params import Params, load_params
from stages.serving.explaining import explain
from stages.serving.recommendations import Choice, recommend_items
from stages.serving.requests import Requests, all_users, listed_users, read_histories, single
from stages.serving.similar import BY, similar_items
from stages.serving.trained import ITEMS, Trained, find_items, item_numbers, load_trained
from stages.serving.writing import check_output, write_recommendations

if TYPE_CHECKING:
    from stages.serving.new_items import NewItems


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--titles", nargs="+", metavar="WORD", help="find raw ids by words of the title")
    task.add_argument("--history", nargs="+", metavar="ID", help="raw item ids, oldest first")
    task.add_argument("--similar", metavar="ID", help="the items most like this one")
    task.add_argument("--users", metavar="all|FILE", help="all users of the dataset, or those of a file")
    task.add_argument("--histories", type=Path, metavar="FILE", help="rows of user, item and, if there is one, time")
    parser.add_argument("--top", type=int, default=10, help="items for each user (default: 10)")
    parser.add_argument("--keep-viewed", action="store_true", help="recommend items of the history too")
    parser.add_argument("--out", type=Path, metavar="FILE", help="of --users, --histories: .parquet, .csv or .jsonl")
    parser.add_argument(
        "--ignore-unknown", action="store_true", help="leave out unknown items; unknown users have no history"
    )
    parser.add_argument(
        "--without-history", choices=["popular", "nothing"], default="popular", help="what such users get"
    )
    parser.add_argument(
        "--new-items", type=Path, metavar="FOLDER", help="titles and covers of items that arrived after training"
    )
    parser.add_argument("--by", choices=BY, default="both", help="of --similar; both: text and image (default)")
    parser.add_argument("--explain", action="store_true", help="of --history: what each score is made of")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


def show(frame: pl.DataFrame, as_json: bool) -> None:
    """Print the rows as JSON or as tab-separated text."""
    if as_json:
        print(json.dumps(frame.to_dicts(), ensure_ascii=False, indent=2))
        return
    for row in frame.iter_rows():
        print("\t".join(map(as_text, row)))


def as_text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def read_requests(arguments: argparse.Namespace, params: Params) -> Requests:
    """The users of --users or --histories."""
    wanted = Wanted(**params.columns.model_dump())
    if arguments.histories:
        items = read_parquet(ITEMS)
        return read_histories(arguments.histories, items, wanted, ignore_unknown=arguments.ignore_unknown)
    if arguments.users == "all":
        return all_users()
    return listed_users(Path(arguments.users), wanted, ignore_unknown=arguments.ignore_unknown)


def read_new(arguments: argparse.Namespace, params: Params, spool: Path) -> NewItems | None:
    """The items of --new-items. spool: an empty folder that lasts as long as they are used."""
    if not arguments.new_items:
        return None
    from stages.serving.new_items import read_new_items  # requests, for a source on the net, takes half a second

    wanted = Wanted(**params.columns.model_dump())
    return read_new_items(arguments.new_items, read_parquet(ITEMS), params.dataset, wanted, spool)


def load(params: Params, new: NewItems | None) -> Trained:
    """The trained model, with the new items if there are any."""
    trained = load_trained(params.device)
    if new is None:
        return trained
    from stages.serving.extending import with_new_items

    return with_new_items(trained, new, params)


def answer(arguments: argparse.Namespace, params: Params, choice: Choice, new: NewItems | None) -> pl.DataFrame:
    """What --history or --similar asks for: rank, raw_id, title, score, and the columns of `explain`."""
    if arguments.similar:
        number = item_numbers(all_items(new), [arguments.similar], "--similar")[0]
        trained = load(params, new)
        rows = similar_items(trained, number, by=arguments.by, top=choice.top)
    else:
        numbers = item_numbers(read_parquet(ITEMS), arguments.history, "--history")
        trained = load(params, new)
        rows = recommend_items(trained, single(numbers), choice).drop("user", "basis")
        rows = explain(trained, numbers, rows) if arguments.explain else rows
    titles = trained.items.select(item="raw_id", title=f"title_{params.language}")
    rows = rows.join(titles, on="item", how="left", maintain_order="left")
    return rows.select("rank", raw_id="item", title="title").hstack(rows.drop("rank", "item", "title"))


def all_items(new: NewItems | None) -> pl.DataFrame:
    """The rows of items.parquet, and of the new items after them."""
    known = read_parquet(ITEMS)
    return known if new is None else pl.concat([known, new.items])


def main() -> None:
    arguments, params = parse_arguments(), load_params()
    with TemporaryDirectory() as spool:
        run(arguments, params, read_new(arguments, params, Path(spool)))


def run(arguments: argparse.Namespace, params: Params, new: NewItems | None) -> None:
    """Do what the arguments ask for."""
    if arguments.titles:
        return show(find_items(all_items(new), arguments.titles, f"title_{params.language}"), arguments.json)
    if arguments.top < 1:
        raise InputError(f"--top {arguments.top}: ask for one item or more")
    choice = Choice(
        top=arguments.top, keep_viewed=arguments.keep_viewed, popular=arguments.without_history == "popular"
    )
    if arguments.history or arguments.similar:
        return show(answer(arguments, params, choice, new), arguments.json)
    if not arguments.out:
        raise InputError("--out FILE is missing: say where to write, such as --out recommendations.parquet")
    check_output(arguments.out)
    requests = read_requests(arguments, params)
    count = write_recommendations(arguments.out, load(params, new), requests, choice)
    print(f"{arguments.out}: {count:,} recommendations for {len(requests.users):,} users")
    return None


if __name__ == "__main__":
    run_stage(main)
