"""Collect curves, metrics and pictures of the last run in metrics/, which is in git; compare the systems (Table 4).

All outputs of the training stages are cached by DVC, because DVC never restores a stage with an uncached output from
the run cache. This stage is cheap to run again, so its outputs may be uncached and committed.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.encoders.covers import CoverArchive
from stages.errors import run_stage
from stages.files import atomic, read_json, read_parquet, write_csv, write_json
from stages.params import OURS, load_params
from stages.pictures.alignment import draw_alignment
from stages.pictures.cases import draw_cases
from stages.pictures.placeholder import draw_or_placeholder
from stages.provenance import REFIT, check_inputs
from stages.rank_files import PROTOCOLS
from stages.tables.comparison import DISTILLED, FUSED, NAMES, as_markdown, as_text, compare_systems
from stages.tables.curves import curves_of_models, read_curves
from stages.tables.groups import metrics_by_groups
from stages.tables.markdown import TESTED
from stages.training.metrics import mean_metrics_by_protocol

CURVES = Path("artifacts/curves")
RANKS = Path("artifacts/ranks")
SPLIT = Path("artifacts/split")
CASES = Path("artifacts/cases.parquet")
SHOWN = Path("artifacts/table4.txt")  # what is printed; not in git, so that the first `dvc repro` of a clone prints it
METRICS = Path("metrics")
STAGES = ("sft", "pretrain", "posttrain")

Ranks = dict[str, dict[str, np.ndarray]]  # {protocol: {system: (users,)}}


def remove_unlisted(systems: list[str]) -> None:
    """Delete ranks and curves of systems that params.yaml no longer lists: they would change the folders' hashes."""
    for path in RANKS.glob("*"):
        if path.stem not in systems:
            path.unlink()
    for path in (CURVES / "baselines").glob("*"):
        if path.name not in systems:
            shutil.rmtree(path)


def read_ranks(systems: list[str]) -> Ranks:
    """The rank of every user's test item, by protocol and system."""
    frames = {name: read_parquet(RANKS / f"{name}.parquet") for name in systems}
    return {
        protocol: {name: frame[column].to_numpy() for name, frame in frames.items()}
        for protocol, column in PROTOCOLS.items()
    }


def write_training(trained: Iterable[str], *, with_distilled: bool) -> None:
    """Curves and summaries of SICSRec's own stages, and the curves of all models for `dvc plots`."""
    for stage in STAGES:
        write_csv(METRICS / "curves" / f"{stage}.csv", read_curves(CURVES / stage))
    folders = {NAMES["id_encoder"]: CURVES / "pretrain", NAMES["sicsrec"]: CURVES / "posttrain"}
    folders |= {name: CURVES / "baselines" / name for name in trained}
    folders |= {DISTILLED: CURVES / "distill"} if with_distilled else {}
    write_csv(METRICS / "curves" / "models.csv", curves_of_models(folders))
    write_json(METRICS / "training.json", {stage: read_json(CURVES / stage / "summary.json") for stage in STAGES})


def write_baselines(summaries: dict[str, dict[str, Any]], ranks: Ranks) -> None:
    """One JSON file per baseline: its metrics in both protocols, a summary of its training, and its refit's metrics."""
    with atomic(METRICS / "baselines") as folder:
        folder.mkdir(parents=True)
        for name, summary in summaries.items():
            content = metrics_of(name, ranks) | {"training": summary}
            if (again := f"{name}{REFIT}") in ranks["kept"]:
                content["refit"] = metrics_of(again, ranks) | {"epochs": summary["best_epoch"]}
            write_json(folder / f"{name}.json", content)


def metrics_of(system: str, ranks: Ranks) -> dict[str, Any]:
    """The system's metrics in both protocols."""
    return mean_metrics_by_protocol(*(ranks[protocol][system] for protocol in PROTOCOLS))


def write_groups(ranks: Ranks) -> None:
    """For which users content helps: SICSRec and its ID encoder by history length and by the test item's popularity."""
    train, test = read_parquet(SPLIT / "train.parquet"), read_parquet(SPLIT / "test.parquet")
    counts = read_parquet(SPLIT / "items.parquet")["count"].to_numpy()
    if "history" in test.columns:  # of a split by time
        lengths = test["history"].list.len().to_numpy().astype(np.int64)
    else:
        lengths = train["items"].list.len().to_numpy().astype(np.int64) + 1  # with the validation item
    targets = test["item"].to_numpy()
    content = {
        f"viewed_items_{protocol}": metrics_by_groups(
            {name: ranks[protocol][name] for name in OURS}, lengths=lengths, targets=targets, counts=counts
        )
        for protocol in PROTOCOLS
    }
    write_json(METRICS / "groups.json", content)
    points = [
        {"kind": kind, "group": f"{group} ({values['users']:,})", "model": NAMES[name], "protocol": protocol}
        | {TESTED: values[name][TESTED]}
        for protocol in PROTOCOLS
        for kind, groups in content[f"viewed_items_{protocol}"].items()
        for group, values in groups.items()
        for name in OURS
    ]
    write_csv(METRICS / "groups.csv", pl.DataFrame(points))


def write_comparison(table: dict[str, Any]) -> None:
    """Table 4 of this run as JSON and Markdown, and the values that `dvc plots` draws."""
    write_json(METRICS / "table4.json", table)
    with atomic(METRICS / "table4.md") as temporary:
        temporary.write_text(as_markdown(table), encoding="utf-8")
    title = f"Systems of this run on {table['dataset']}, 95 % intervals over users"
    points = [
        {"title": title, "row": NAMES.get(name, name), "protocol": protocol, TESTED: values[TESTED]}
        | dict(zip(("low", "high"), values["interval"], strict=True))
        for protocol in PROTOCOLS
        for name, values in table[f"viewed_items_{protocol}"]["systems"].items()
    ]
    write_csv(METRICS / "table4.csv", pl.DataFrame(points))


def summary(table: dict[str, Any]) -> str:
    """The last lines of `dvc repro`: the table, where to look, what to try."""
    lines = [f"the systems of Table 4 on {table['dataset']}", "", as_text(table), ""]
    if table["dataset"] == "sample":
        lines.append("The sample is made up: its numbers say nothing of real data.")
    lines.append("See more:  metrics/table4.md, metrics/README.md, dvc plots show --open")
    lines.append("Try next:  dvc exp run -S alpha=0.3, then dvc metrics diff")
    return "\n".join(lines)


def draw_pictures(dataset: str, title: str) -> None:
    """How far titles and covers are apart, and where the models differ (Fig. 5)."""
    projection, summary = CURVES / "sft" / "projection.parquet", read_json(CURVES / "sft" / "summary.json")
    points = read_parquet(projection) if projection.is_file() else pl.DataFrame(schema=["when"])
    gaps, cases, items = summary.get("modality_gap", {}), read_parquet(CASES), read_parquet(SPLIT / "items.parquet")
    archive = Path(f"artifacts/raw/{dataset}_cover.zip")
    folder = METRICS / "pictures"
    draw_or_placeholder(folder / "alignment.png", lambda path: draw_alignment(points, gaps, path))
    draw_or_placeholder(folder / "cases.jpg", lambda path: draw_cases(cases, items, CoverArchive(archive), title, path))


def main() -> str:
    params = load_params()
    listed = [*OURS, *params.baselines]
    remove_unlisted([*listed, *(f"{name}{REFIT}" for name in listed), FUSED, DISTILLED])
    summaries = {name: read_json(RANKS / f"{name}.json") for name in params.baselines}
    skipped = {name: summary["skipped"] for name, summary in summaries.items() if "skipped" in summary}
    trained = {name: summary for name, summary in summaries.items() if name not in skipped}
    split = [SPLIT / f"{name}.parquet" for name in ("items", "train", "test")]
    systems = [*OURS, *trained, *([FUSED] if params.fuse else []), *([DISTILLED] if params.distill else [])]
    refitted = [f"{name}{REFIT}" for name, about in trained.items() if params.refit and "best_epoch" in about]
    check_inputs(*split, *(RANKS / f"{name}.parquet" for name in (*systems, *refitted)), CASES)
    ranks = read_ranks(systems)
    write_training(trained, with_distilled=bool(params.distill))
    write_baselines(trained, read_ranks([*trained, *refitted]))
    write_groups(ranks)
    table = compare_systems(
        ranks["kept"], ranks["filtered"], params.dataset, resamples=params.evaluate.bootstrap, seed=params.seed
    )
    weights = read_json(METRICS / "fuse.json")["weights"] if params.fuse else {}
    table |= {"skipped": skipped, "weights": weights}
    write_comparison(table)  # before the pictures: one that fails must not cost the tables
    draw_pictures(params.dataset, f"title_{params.language}")
    shown = summary(table)
    with atomic(SHOWN) as temporary:
        temporary.write_text(f"{shown}\n", encoding="utf-8")
    return shown


if __name__ == "__main__":
    run_stage(main)
