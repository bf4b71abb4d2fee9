"""Recommend with the trained model.

`python -m stages.recommend --history v12 v9 --top 10` shows what one user should see next, `--similar v12` what is like
an item, `python -m stages.recommend --users all --top 100 --out recommendations.parquet` writes a file for everybody.
"""

import argparse
import json
from pathlib import Path

import polars as pl

from stages.data.columns import Wanted
from stages.errors import InputError, run_stage
from stages.files import read_parquet
from stages.params import Params, load_params
from stages.serving.explaining import explain
from stages.serving.recommendations import Choice, recommend_items
from stages.serving.requests import Requests, all_users, listed_users, read_histories, single
from stages.serving.similar import BY, similar_items
from stages.serving.trained import ITEMS, find_items, item_numbers, load_trained
from stages.serving.writing import check_output, write_recommendations


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


def answer(arguments: argparse.Namespace, params: Params, choice: Choice) -> pl.DataFrame:
    """What --history or --similar asks for: rank, raw_id, title, score, and the columns of `explain`."""
    option, raw_ids = ("--history", arguments.history) if arguments.history else ("--similar", [arguments.similar])
    numbers = item_numbers(read_parquet(ITEMS), raw_ids, option)
    trained = load_trained(params.device)
    if arguments.similar:
        rows = similar_items(trained, numbers[0], by=arguments.by, top=choice.top)
    else:
        rows = recommend_items(trained, single(numbers), choice).drop("user", "basis")
        rows = explain(trained, numbers, rows) if arguments.explain else rows
    titles = trained.items.select(item="raw_id", title=f"title_{params.language}")
    rows = rows.join(titles, on="item", how="left", maintain_order="left")
    return rows.select("rank", raw_id="item", title="title").hstack(rows.drop("rank", "item", "title"))


def main() -> None:
    arguments, params = parse_arguments(), load_params()
    if arguments.titles:
        found = find_items(read_parquet(ITEMS), arguments.titles, f"title_{params.language}")
        return show(found, arguments.json)
    if arguments.top < 1:
        raise InputError(f"--top {arguments.top}: ask for one item or more")
    choice = Choice(
        top=arguments.top, keep_viewed=arguments.keep_viewed, popular=arguments.without_history == "popular"
    )
    if arguments.history or arguments.similar:
        return show(answer(arguments, params, choice), arguments.json)
    if not arguments.out:
        raise InputError("--out FILE is missing: say where to write, such as --out recommendations.parquet")
    check_output(arguments.out)
    requests = read_requests(arguments, params)
    count = write_recommendations(arguments.out, load_trained(params.device), requests, choice)
    print(f"{arguments.out}: {count:,} recommendations for {len(requests.users):,} users")
    return None


if __name__ == "__main__":
    run_stage(main)
