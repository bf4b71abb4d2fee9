"""The parts of metrics/README.md that show one table: its differences, its values, its groups by training count."""

from collections.abc import Collection, Iterator
from typing import Any

from stages.tables.markdown import SIGNIFICANT, TESTED, p_digits, table_lines
from stages.tables.registry import ALL_TABLES

DATASETS = ("Bili_Food", "Bili_Dance")
IN_README = {"itemknn": "ItemKNN", "sasrec": "SASRec (the ID encoder)", "unisrec_t_id": "UniSRec T+ID"}
SYSTEM_NAMES = IN_README | {
    "sicsrec": "SICSRec ID+T", "pop": "Pop", "gru4rec": "GRU4Rec", "bert4rec": "BERT4Rec", "unisrec_t": "UniSRec T",
    "vqrec": "VQ-Rec T", "missrec_t": "MISSRec T", "missrec_t_id": "MISSRec T+ID", "missrec_tv_id": "MISSRec T+V+ID",
    "llmesr_t_id": "LLM-ESR T+ID", "llmesr_tv_id": "LLMESR++ T+V+ID",
}  # fmt: skip
PROTOCOL_NAMES = {"kept": "viewed items kept", "filtered": "filtered"}

Table = dict[str, Any]  # as summary.py writes it


def in_order(datasets: Collection[str]) -> list[str]:
    """NineRec's, then one's own by name."""
    return [
        *(name for name in DATASETS if name in datasets),
        *sorted(name for name in datasets if name not in DATASETS),
    ]


def titled(dataset: str) -> str:
    """The dataset's name; of the sample, that it is made up."""
    return "sample (made up)" if dataset == "sample" else dataset


def comparison(row: Table, reference: Table | None, protocol: str) -> str:
    """`-1.1% (p 0.960)`: the row's ndcg@10 against the reference's, bold when significant; None: it was not run."""
    if row is reference:
        return "reference"
    if reference is None:
        return f"{row[protocol][TESTED]['mean']:.4f} (reference not run)"
    ours, base = (part[protocol][TESTED]["mean"] for part in (row, reference))
    p_value = row[protocol].get("p")
    if p_value is None:  # no seed in common
        return f"{ours / base - 1:+.1%} (not tested)"
    seeds = row.get("seeds", [])
    if seeds != reference.get("seeds", []):  # the interval is of the seeds in common, the means are not
        low, high = row[protocol]["difference"]
        text = f"{low:+.1%} to {high:+.1%} (seed {', '.join(map(str, seeds))}, p {p_digits(p_value)})"
    else:
        text = f"{ours / base - 1:+.1%} (p {p_digits(p_value)})"
    return f"**{text}**" if p_value < SIGNIFICANT else text


def paper_comparison(row: Table, reference: Table | None) -> str:
    """`+3.1%`: the row's ndcg@10 against the reference's in the paper; empty where the paper lacks one of them."""
    ours, base = (((part or {}).get("paper") or {}).get(TESTED) for part in (row, reference))
    return f"{ours / base - 1:+.1%}" if ours and base and row is not reference else ""


def differences(by_dataset: dict[str, Table]) -> Iterator[str]:
    """A line a row: how far it is from the reference in both protocols, and in the paper."""
    datasets = in_order(by_dataset)
    first = by_dataset[datasets[0]]
    heads = [f"against {SYSTEM_NAMES.get(first['reference'], first['reference'])}"]
    for name in datasets:
        heads += [f"{titled(name)}: kept", "filtered", "paper"]
    cells = [heads]
    for row in (row.name for row in ALL_TABLES[first["table"]].rows):
        if not any(row in by_dataset[name]["rows"] for name in datasets):
            continue
        line = [SYSTEM_NAMES.get(row, row)]
        for table in (by_dataset[name] for name in datasets):
            if row not in table["rows"]:
                line += ["", "", ""]
                continue
            found, reference = table["rows"][row], table["rows"].get(table["reference"])
            line += [comparison(found, reference, protocol) for protocol in PROTOCOL_NAMES]
            line.append(paper_comparison(found, reference))
        cells.append(line)
    yield from table_lines(cells)


def values(table: Table) -> Iterator[str]:
    """Means and deviations over seeds in both protocols, the paper's value beside."""
    metrics = table["metrics"]
    heads = ["", *(f"kept {m}" for m in metrics), f"paper's {TESTED}", *(f"filtered {m}" for m in metrics), "epochs"]
    cells = [heads]
    for name, row in table["rows"].items():
        paper = (row["paper"] or {}).get(TESTED)
        kept, filtered = (
            [mean_and_deviation(row[protocol][metric]) for metric in metrics] for protocol in ("kept", "filtered")
        )
        shown = SYSTEM_NAMES.get(name, name)
        cells.append([shown, *kept, f"{paper:.4f}" if paper else "", *filtered, f"{row['epochs']:.0f}"])
    yield from table_lines(cells)


def latency_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line a system: median milliseconds by batch size. rows: as stages/bench/latency.py writes them."""
    batches = sorted({row["batch"] for row in rows})
    cells = [["histories in a batch", *map(str, batches)]]
    for system in dict.fromkeys(row["system"] for row in rows):
        median = {row["batch"]: row["median_ms"] for row in rows if row["system"] == system}
        cells.append([system, *(f"{median[batch]:.1f}" if batch in median else "" for batch in batches)])
    yield from table_lines(cells)


def by_training_count(table: Table) -> Iterator[str]:
    """hit@10 with viewed items filtered, by how often the target occurs in training; nothing without such runs."""
    groups = {
        name: row["filtered"]["by_training_count"]
        for name, row in table["rows"].items()
        if "by_training_count" in row["filtered"]
    }
    if not groups:
        return
    users = next(iter(groups.values()))
    heads = sorted(users, key=lambda head: int(head.rstrip("+").split("-")[0]))
    cells = [["times in training (users)", *(f"{head} ({users[head]['users']:.0f})" for head in heads)]]
    for name, values in groups.items():
        cells.append([SYSTEM_NAMES.get(name, name), *(f"{values[head]['hit@10']:.4f}" for head in heads)])
    yield f"{titled(table['dataset'])}: filtered hit@10, by how often the target occurs in training."
    yield ""
    yield from table_lines(cells)
    yield ""


def mean_and_deviation(value: dict[str, float | None]) -> str:
    """`0.1068 ± 0.0007`; of one seed the mean alone. value: mean and sd."""
    return f"{value['mean']:.4f}" + (f" ± {value['sd']:.4f}" if value["sd"] is not None else "")
