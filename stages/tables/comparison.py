"""The systems of one run compared, which `report` writes to metrics/table4.md.

Table 4 over several seeds is another file, metrics/tables/table4_DATASET.md: see summary.py.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from stages.params import METRICS
from stages.tables.markdown import SIGNIFICANT, TESTED, p_cell
from stages.tables.paper import paper_values
from stages.training.metrics import mean_metrics, per_user_metrics
from stages.training.statistics import holm, interval, paired_p_value

OURS = "sicsrec"
FUSED, DISTILLED = "fused", "distilled"  # the sum of several systems of the table, and SICSRec taught by it
SHOWN = ("ndcg@10", "hit@10")  # on the screen
NAMES = {"sicsrec": "SICSRec", "id_encoder": "ID encoder alone"}
IN_PAPER = {"id_encoder": "sasrec"}  # the ID encoder alone is SASRec

Ranks = dict[str, np.ndarray]  # {system: (users,) rank of the test item, 1 = best}


def compare(ranks: Ranks, *, resamples: int, seed: int) -> dict[str, Any]:
    """Metrics of each system, tests of SICSRec against each other one, its gain over the best (no sum, no student).

    → {"systems": {name: {metrics, "interval": 95 % of TESTED, "p": Holm-corrected of TESTED}},
       "best_other": {metric: {"system", "improvement"}}}.
    """
    others = [name for name in ranks if name != OURS]
    gains = {name: per_user_metrics(values)[TESTED] for name, values in ranks.items()}
    p_values = holm([paired_p_value(gains[OURS], gains[name], resamples=resamples, seed=seed) for name in others])
    systems: dict[str, dict[str, Any]] = {name: {**mean_metrics(values)} for name, values in ranks.items()}
    for name, values in gains.items():
        systems[name]["interval"] = interval(values, resamples=resamples, seed=seed)
    for name, p_value in zip(others, p_values, strict=True):
        systems[name]["p"] = p_value
    best_other = {}
    for metric in METRICS:
        best = max((name for name in others if name not in (FUSED, DISTILLED)), key=lambda name: systems[name][metric])
        gain = systems[OURS][metric] / systems[best][metric] - 1 if systems[best][metric] else None
        best_other[metric] = {"system": best, "improvement": gain}
    return {"systems": systems, "best_other": best_other}


def compare_systems(kept: Ranks, filtered: Ranks, dataset: str, *, resamples: int, seed: int) -> dict[str, Any]:
    """The table as JSON: both protocols, and the paper's values (viewed items kept)."""
    paper = {name: found for name in kept if (found := paper_values("table4", dataset, IN_PAPER.get(name, name)))}
    return {
        "dataset": dataset,
        "viewed_items_kept": compare(kept, resamples=resamples, seed=seed),
        "viewed_items_filtered": compare(filtered, resamples=resamples, seed=seed),
        "paper": paper,
    }


def as_text(table: dict[str, Any]) -> str:
    """The table for a terminal of 80 columns: SICSRec, its ID encoder, other systems by name, fused, distilled."""
    kept, filtered = table["viewed_items_kept"]["systems"], table["viewed_items_filtered"]["systems"]
    places = {OURS: 0, "id_encoder": 1, FUSED: 3, DISTILLED: 4}
    width = max(len(NAMES.get(name, name)) for name in kept)
    head = "".join(f"{metric:>10} " for metric in SHOWN)
    lines = [
        f"{'':{width}}  {'viewed items kept':^22}   {'viewed items filtered':^22}",
        f"{'':{width}}  {head}   {head}",
    ]
    for name in sorted(kept, key=lambda name: (places.get(name, 2), name)):
        cells = [
            "".join(f"{values[metric]:10.4f}{_star(values, metric)}" for metric in SHOWN)
            for values in (kept[name], filtered[name])
        ]
        lines.append(f"{NAMES.get(name, name):{width}}  {cells[0]}   {cells[1]}")
    lines.append(f"* {TESTED} differs from that of {NAMES[OURS]}, p < {SIGNIFICANT}")
    return "\n".join(line.rstrip() for line in lines)


def _star(values: dict[str, Any], metric: str) -> str:
    return "*" if metric == TESTED and values.get("p", 1) < SIGNIFICANT else " "


def as_markdown(table: dict[str, Any]) -> str:
    """The table in Markdown."""
    return "\n".join(_lines(table)) + "\n"


def _lines(table: dict[str, Any]) -> Iterator[str]:
    kept, filtered = table["viewed_items_kept"], table["viewed_items_filtered"]
    yield f"# {table['dataset']}: the systems of Table 4"
    yield ""
    yield "| system | hit@5 | hit@10 | ndcg@5 | ndcg@10 | p | paper's ndcg@10 | filtered: hit@10 | ndcg@10 | p |"
    yield "| --- | " + " | ".join(["---:"] * 9) + " |"
    for name, values in kept["systems"].items():
        cells = [f"{values[metric]:.4f}" for metric in METRICS]
        paper = table["paper"].get(name)
        other = filtered["systems"][name]
        cells += [p_cell(values.get("p")), f"{paper[TESTED]:.4f}" if paper else ""]
        cells += [f"{other['hit@10']:.4f}", f"{other[TESTED]:.4f}", p_cell(other.get("p"))]
        yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""
    for why in table.get("skipped", {}).values():
        yield f"Skipped: {why}."
        yield ""
    if weights := table.get("weights"):
        added = " + ".join(f"{weight:g} {name}" for name, weight in weights.items())
        yield f"{FUSED}: the sum of standardised scores, {added}; the weights were chosen on validation."
        yield ""
    if DISTILLED in kept["systems"]:
        yield f"{DISTILLED}: {OURS} trained once more, by the softmax of that sum beside the next items."
        yield ""
    for words, part in (("Viewed items kept", kept), ("Viewed items filtered", filtered)):
        gains = ", ".join(
            f"{metric} {best['improvement']:+.1%} over {best['system']}"
            for metric, best in part["best_other"].items()
            if best["improvement"] is not None
        )
        yield f"{words}, {OURS} against the best other: {gains}."
    yield ""
    yield (
        f"p: {OURS} and this system have the same {TESTED}; paired randomisation test over users, Holm's correction "
        f"over the systems; bold below {SIGNIFICANT}. The paper ranks with viewed items kept."
    )
