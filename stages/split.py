"""Stage `split`: raw interactions into histories and held-out items (leave-one-out), items numbered from 1."""

from pathlib import Path

from stages.data.leave_one_out import split_leave_one_out, summarise
from stages.data.ninerec import cover_ids, read_items, read_pairs
from stages.errors import run_stage
from stages.files import write_json, write_parquet
from stages.params import load_params

RAW = Path("artifacts/raw")
OUTPUT = Path("artifacts/split")
METRICS = Path("metrics/split.json")


def main() -> None:
    """Write items, train, valid, test and full under artifacts/split."""
    params = load_params()
    items = read_items(RAW / f"{params.dataset}_item.csv")
    pairs = read_pairs(RAW / f"{params.dataset}_pair.csv", set(items["raw_id"]))
    covers = cover_ids(RAW / f"{params.dataset}_cover.zip")
    split = split_leave_one_out(pairs, items, covers, params.split.min_interactions)
    for name in ("items", "train", "valid", "test", "full"):
        write_parquet(OUTPUT / f"{name}.parquet", getattr(split, name))
    write_json(METRICS, summarise(split))


if __name__ == "__main__":
    run_stage(main)
