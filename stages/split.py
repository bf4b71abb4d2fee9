"""Interactions to histories, with the last two items of each user (paper section 4.1) or a period held out."""

from pathlib import Path
from tempfile import TemporaryDirectory

from stages.data.covers import check_covers, cover_names
from stages.data.leave_one_out import split_leave_one_out
from stages.data.ninerec import check_titles, read_items, scan_pairs
from stages.data.time_split import find_moments, split_by_time
from stages.data.user_histories import summarise
from stages.errors import run_stage
from stages.files import write_json, write_parquet
from stages.params import load_params
from stages.provenance import frame_id

RAW = Path("artifacts/raw")
OUTPUT = Path("artifacts/split")
PART_BYTES = 128 * 2**20  # of the CSV in memory at a time: about 5 million interactions
METRICS = Path("metrics/split.json")


def main() -> str:
    """Write the items, train, valid, test and full tables under artifacts/split."""
    params = load_params()
    items_file = RAW / f"{params.dataset}_item.csv"
    items = read_items(items_file)
    check_titles(items_file, items, params.language, params.modalities)
    covers_file = RAW / f"{params.dataset}_cover.zip"
    check_covers(covers_file, items["raw_id"], params.modalities)
    file = RAW / f"{params.dataset}_pair.csv"
    pairs = scan_pairs(file)
    covers = set(cover_names(covers_file))
    parts = 1 + file.stat().st_size // PART_BYTES
    OUTPUT.mkdir(parents=True, exist_ok=True)
    least, moments = params.split.min_interactions, {}
    with TemporaryDirectory(prefix=".parts.", dir=OUTPUT) as folder:
        if params.split.strategy == "time":
            valid_from, test_from = find_moments(pairs, params.split.valid_from, params.split.test_from)
            moments = {"valid_from": valid_from, "test_from": test_from}
            split = split_by_time(pairs, items, covers, Path(folder), min_interactions=least, parts=parts, **moments)
        else:
            split = split_leave_one_out(pairs, items, covers, Path(folder), min_interactions=least, parts=parts)
    frames = {name: getattr(split, name) for name in ("items", "train", "valid", "test", "full")}
    inputs = {OUTPUT.as_posix(): frame_id(*frames.values())}  # all files of a split carry one id
    for name, frame in frames.items():
        write_parquet(OUTPUT / f"{name}.parquet", frame, inputs)
    targets = {"valid_users": split.valid.height, "test_users": split.test.height} if moments else {}
    facts = summarise(split)
    write_json(METRICS, facts | moments | targets)
    untitled = split.dropped["untitled_interactions"]
    without = f"; without {untitled:,} interactions with items that have no title" if untitled else ""
    return f"{facts['users']:,} users, {facts['items']:,} items, {facts['interactions']:,} interactions{without}"


if __name__ == "__main__":
    run_stage(main)
