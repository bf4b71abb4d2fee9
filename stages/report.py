"""Gather what was trained and ranked into metrics/, where git keeps it.

The training stages' own outputs are all cached by DVC, because a stage with an uncached output is never restored from
the run cache; this stage is cheap, so it may hold the copies that are committed.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.errors import run_stage
from stages.files import atomic, read_json, read_parquet, write_json
from stages.params import load_params
from stages.pictures.alignment import draw_alignment
from stages.pictures.cases import CoverArchive, draw_cases
from stages.tables.comparison import as_markdown, build_table
from stages.tables.groups import length_groups, metrics_by_group, popularity_groups
from stages.training.metrics import mean_metrics

CURVES = Path("artifacts/curves")
RANKS = Path("artifacts/ranks")
SPLIT = Path("artifacts/split")
CASES = Path("artifacts/cases.parquet")
METRICS = Path("metrics")
STAGES = ("sft", "pretrain", "posttrain")
OURS = ("sicsrec", "id_encoder")
LIVE_ONLY = ("positions_per_second", "learning_rate")  # differs from run to run; never changes


def read_curves(folder: Path) -> pl.DataFrame:
    """DVCLive's one file a metric as one table: `epoch` and a column a metric."""
    columns: dict[str, list[float]] = {}
    for path in sorted((folder / "plots" / "metrics").rglob("*.tsv")):
        if path.stem in LIVE_ONLY:
            continue
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        columns[path.stem] = [float(row[path.stem]) for row in rows]
    epochs = range(1, len(next(iter(columns.values()), [])) + 1)
    return pl.DataFrame({"epoch": list(epochs), **columns})


def write_training() -> None:
    """Curves and summaries of SICSRec's own stages."""
    summaries = {}
    for stage in STAGES:
        summaries[stage] = read_json(CURVES / stage / "summary.json")
        with atomic(METRICS / "curves" / f"{stage}.csv") as temporary:
            read_curves(CURVES / stage).write_csv(temporary)
    write_json(METRICS / "training.json", summaries)


def write_baselines(summaries: dict[str, dict[str, Any]], frames: dict[str, pl.DataFrame]) -> None:
    """A JSON file a system: its metrics in both protocols, and how its training went."""
    with atomic(METRICS / "baselines") as folder:
        folder.mkdir(parents=True)
        for name, summary in summaries.items():
            kept, filtered = (frames[name][column].to_numpy() for column in ("rank", "rank_filtered"))
            write_json(
                folder / f"{name}.json",
                mean_metrics(kept) | {"filtered": mean_metrics(filtered), "training": summary},
            )


def write_groups(frames: dict[str, pl.DataFrame]) -> None:
    """Where content helps: SICSRec beside its ID encoder, by history length and by popularity of the test item."""
    train, test = read_parquet(SPLIT / "train.parquet"), read_parquet(SPLIT / "test.parquet")
    counts = read_parquet(SPLIT / "items.parquet")["count"].to_numpy()
    known = train["items"].list.len().to_numpy().astype(np.int64) + 1  # with the validation item
    content = {}
    for protocol, column in (("viewed_items_kept", "rank"), ("viewed_items_filtered", "rank_filtered")):
        ranks = {name: frames[name][column].to_numpy() for name in OURS}
        content[protocol] = {
            "history_length": metrics_by_group(length_groups(known), ranks),
            "target_popularity": metrics_by_group(popularity_groups(test["item"].to_numpy(), counts), ranks),
        }
    write_json(METRICS / "groups.json", content)


def draw_pictures(dataset: str, title: str) -> None:
    """How far titles and covers are apart, and where the models differ (Fig. 5)."""
    projection, summary = CURVES / "sft" / "projection.parquet", read_json(CURVES / "sft" / "summary.json")
    points = read_parquet(projection) if projection.is_file() else pl.DataFrame(schema=["when"])
    draw_alignment(points, summary.get("modality_gap", {}), METRICS / "pictures" / "alignment.png")
    covers, items = CoverArchive(Path(f"artifacts/raw/{dataset}_cover.zip")), read_parquet(SPLIT / "items.parquet")
    draw_cases(read_parquet(CASES), items, covers, title, METRICS / "pictures" / "cases.jpg")


def remove_unlisted(systems: list[str]) -> None:
    """Ranks that a longer `baselines` left behind: they would count in dvc.lock's hash of the folder."""
    for path in RANKS.iterdir():
        if path.stem not in systems:
            path.unlink()


def main() -> None:
    params = load_params()
    remove_unlisted([*OURS, *params.baselines])
    write_training()
    draw_pictures(params.dataset, f"title_{params.language}")
    summaries = {name: read_json(RANKS / f"{name}.json") for name in params.baselines}
    skipped = {name: summary["skipped"] for name, summary in summaries.items() if "skipped" in summary}
    trained = {name: summary for name, summary in summaries.items() if name not in skipped}
    frames = {name: read_parquet(RANKS / f"{name}.parquet") for name in (*OURS, *trained)}
    write_baselines(trained, frames)
    write_groups(frames)

    kept, filtered = (
        {name: frame[column].to_numpy() for name, frame in frames.items()} for column in ("rank", "rank_filtered")
    )
    table = build_table(kept, filtered, params.dataset, params.evaluate.bootstrap, params.seed)
    table["skipped"] = skipped
    write_json(METRICS / "table4.json", table)
    with atomic(METRICS / "table4.md") as temporary:
        temporary.write_text(as_markdown(table), encoding="utf-8")
    rows = [
        {"row": name, "protocol": protocol, "ndcg@10": values["ndcg@10"]}
        for protocol in ("kept", "filtered")
        for name, values in table[f"viewed_items_{protocol}"]["systems"].items()
    ]
    with atomic(METRICS / "figures" / "table4.csv") as temporary:
        pl.DataFrame(rows).write_csv(temporary)


if __name__ == "__main__":
    run_stage(main)
