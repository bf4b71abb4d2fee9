"""The command line of `recommend`."""

import argparse
from pathlib import Path

from stages.errors import InputError
from stages.models.systems import SYSTEMS
from stages.serving.similar import BY
from stages.serving.writing import check_output, check_place

TOP = 10
PICTURES = (".png", ".jpg")
SICSRECS, FUSED = ("sicsrec", "distilled"), "fused"
NAMES = (*SICSRECS, "id_encoder", FUSED, *SYSTEMS)


def parse_arguments(description: str | None) -> argparse.Namespace:
    """The options of `python -m stages.recommend`. Raises InputError for values that cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.recommend",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--titles", nargs="+", metavar="WORD", help="find raw ids by words of the title")
    task.add_argument("--history", nargs="+", metavar="ID", help="raw item ids, oldest first")
    task.add_argument("--similar", metavar="ID", help="the items most like this one")
    task.add_argument("--users", metavar="all|FILE", help="all users of the dataset, or those of a file")
    task.add_argument("--histories", type=Path, metavar="FILE", help="rows of user, item and, if there is one, time")
    parser.add_argument("--top", type=int, help=f"items for each user (default: {TOP}); of --titles: default: all")
    parser.add_argument("--keep-viewed", action="store_true", help="recommend items of the history too")
    parser.add_argument("--out", type=Path, metavar="FILE", help="of --users, --histories: .parquet, .csv or .jsonl")
    parser.add_argument(
        "--ignore-unknown", action="store_true", help="leave out unknown items; unknown users have no history"
    )
    parser.add_argument(
        "--without-history", choices=["popular", "nothing"], help="what such users get (default: popular)"
    )
    parser.add_argument(
        "--new-items", type=Path, metavar="FOLDER", help="titles and covers of items that arrived after training"
    )
    parser.add_argument(
        "--system",
        choices=NAMES,
        metavar="NAME",
        default=SICSRECS[0],
        help="another trained system; fused: those of `fuse`; distilled: SICSRec taught by their sum",
    )
    parser.add_argument("--by", choices=BY, help="of --similar; both: text and image; default: all content")
    parser.add_argument("--explain", action="store_true", help="of --history: what each score is made of")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="of --explain: also drawn, as .png or .jpg")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    if arguments.top is None and not arguments.titles:
        arguments.top = TOP
    if arguments.top is not None and arguments.top < 1:
        raise InputError(f"--top {arguments.top}: ask for one item or more")
    many = arguments.users or arguments.histories
    for option, given, fits, of in (
        ("--out", arguments.out, many, "--users and --histories"),
        ("--ignore-unknown", arguments.ignore_unknown, many, "--users and --histories"),
        ("--without-history", arguments.without_history, many, "--users and --histories"),
        ("--keep-viewed", arguments.keep_viewed, many or arguments.history, "--history, --users and --histories"),
        ("--by", arguments.by, arguments.similar, "--similar"),
        ("--explain", arguments.explain, arguments.history, "--history"),
    ):
        if given and not fits:
            raise InputError(f"{option} belongs to {of}: leave it out")
    for option in ("similar", "explain", "new_items"):
        if arguments.system not in SICSRECS and getattr(arguments, option):
            raise InputError(
                f"--{option.replace('_', '-')}: only {' and '.join(SICSRECS)} have it: leave out --system "
                f"{arguments.system}"
            )
    if arguments.picture and not (arguments.explain and arguments.history):
        raise InputError(
            f"--picture {arguments.picture}: only --history with --explain has one: add both, or leave it out"
        )
    if arguments.picture and arguments.picture.suffix not in PICTURES:
        raise InputError(f"--picture {arguments.picture}: end the name in {', '.join(PICTURES)}")
    if arguments.picture:
        check_place(f"--picture {arguments.picture}", arguments.picture)
    if many:
        if not arguments.out:
            raise InputError("--out FILE is missing: say where to write, such as --out recommendations.parquet")
        check_output(arguments.out)
    read = [arguments.histories, arguments.new_items, None if arguments.users == "all" else arguments.users]
    for option in ("out", "picture"):
        if place := getattr(arguments, option):
            _refuse_to_overwrite(f"--{option} {place}", place, [Path(path) for path in read if path])
    return arguments


def _refuse_to_overwrite(option: str, place: Path, read: list[Path]) -> None:
    """Raise InputError when `place` is a file or in a folder that is read, or an artifact."""
    for path in read:
        if place.resolve() == path.resolve():
            raise InputError(f"{option}: this is the file that is read: name another")
    for folder in (*read, Path("artifacts")):
        if place.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{option}: it lies in {folder}/, from where files are read: name another place")
