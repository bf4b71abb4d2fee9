"""The built-in sample: a small made dataset in NineRec's layout, for a run without any download.

`sample_world.py` says who views what, `sample_content.py` writes titles and draws covers. It is made so that a model of
IDs and content is better than a model of either: a rare item has too few interactions for a good ID vector, and habits
do not show in the content.
"""

import csv
from pathlib import Path

import numpy as np

from stages.data.covers import write_covers
from stages.data.sample_content import TOPICS, draw_cover, titles
from stages.data.sample_world import LENGTHS, World, make_world, walk
from stages.errors import InputError

START, YEAR = 1_600_000_000, 31_536_000  # seconds
NO_ENGLISH, NO_COVER = 0.01, 0.02  # share of items


def write_sample(folder: Path, *, users: int, items: int, topics: int, seed: int) -> None:
    """Write sample_pair.csv, sample_item.csv and sample_cover.zip into `folder`; same arguments, same bytes.

    Raises InputError when `topics` is more than TOPICS has, or `items` is fewer than a history needs.
    """
    if topics > len(TOPICS):
        raise InputError(f"download.sample_topics is {topics}: the sample has words for at most {len(TOPICS)}")
    if items < max(topics, 2 * LENGTHS[1]):
        raise InputError(f"download.sample_items is {items}: at least {max(topics, 2 * LENGTHS[1])} are needed")
    rng = np.random.default_rng(seed)
    world = make_world(items, topics, rng)
    folder.mkdir(parents=True, exist_ok=True)
    _write_pairs(folder / "sample_pair.csv", world, users, rng)
    _write_items(folder / "sample_item.csv", world, rng)
    covers = [(f"v{item}.jpg", draw_cover(world, item, topics, rng)) for item in range(items)]
    kept = [cover for cover in covers if rng.random() >= NO_COVER]
    write_covers(folder / "sample_cover.zip", sorted(kept))


def _write_pairs(path: Path, world: World, users: int, rng: np.random.Generator) -> None:
    """Write item_id,user_id,timestamp, sorted by time."""
    rows = []
    for user in range(users):
        history, years = walk(world, rng)
        seconds = START + (years * YEAR).astype(np.int64) + np.arange(len(history))  # no two at the same time
        rows += [(int(time), user, item) for time, item in zip(seconds, history, strict=True)]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            (f"v{item}", f"u{user}", time) for time, user, item in sorted(rows)
        )


def _write_items(path: Path, world: World, rng: np.random.Generator) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for item, (zh, en) in enumerate(titles(world, rng)):
            writer.writerow((f"v{item}", zh, "" if rng.random() < NO_ENGLISH else en))
