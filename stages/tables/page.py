"""`metrics/README.md` and the tables of README.md, from the files in metrics/: `python -m stages.tables.page`.

Nobody edits figures by hand: after a table was made, this command writes both pages again. `--check` writes nothing and
fails when a page is not what the files give.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from stages.errors import InputError, run_stage
from stages.files import atomic, read_json
from stages.tables.archive import archived_runs
from stages.tables.claims import FURTHER_CLAIMS, PAPER_CLAIMS, claim_cells
from stages.tables.comparison import as_text
from stages.tables.markdown import SIGNIFICANT, TESTED, table_lines
from stages.tables.origins import origins
from stages.tables.registry import ALL_TABLES, DISTILLED_PREFIX, SASREC, SCORED_BY_CONTENT, THREE_WITH_CONTENT
from stages.tables.sections import (
    DATASETS,
    IN_README,
    PROTOCOL_NAMES,
    SYSTEM_NAMES,
    Table,
    by_training_count,
    differences,
    in_order,
    latency_table,
    titled,
    values,
)  # fmt: skip

METRICS = Path("metrics")
README = Path("README.md")
RESULTS = ("<!-- results: written by python -m stages.tables.page -->", "<!-- end of results -->")
SAMPLE_RUN = ("<!-- sample: written by python -m stages.tables.page -->", "<!-- end of sample -->")


def read_tables() -> dict[str, dict[str, Table]]:
    """Every table of metrics/tables/, in the paper's order: {table: {dataset: content}}."""
    found: dict[str, dict[str, Table]] = {}
    for name in ALL_TABLES:
        for path in sorted((METRICS / "tables").glob(f"{name}_*.json")):
            content = read_json(path)
            order = [row.name for row in ALL_TABLES[name].rows if row.name in content["rows"]]
            content["rows"] = {row: content["rows"][row] for row in order}
            found.setdefault(name, {})[content["dataset"]] = content
    return found


def readme_table(table4: dict[str, Table]) -> Iterator[str]:
    """SICSRec beside three systems: ndcg@10 in both protocols on each dataset."""
    datasets = [name for name in DATASETS if name in table4]
    rows = [[TESTED, *(f"{name}, {protocol}" for name in datasets for protocol in PROTOCOL_NAMES.values())]]
    for system, name in (IN_README | {"sicsrec": "**SICSRec ID+T**"}).items():
        values = [
            table4[dataset]["rows"][system][protocol][TESTED] for dataset in datasets for protocol in PROTOCOL_NAMES
        ]
        rows.append([name, *(f"{value['mean']:.4f}" for value in values)])
    yield from table_lines(rows)


def readme_filtered(filtered: dict[str, Table]) -> Iterator[str]:
    """ndcg@10 with viewed items filtered, of systems that were stopped by it, where they have all of SASRec's seeds."""
    datasets = [name for name in DATASETS if name in filtered]
    rows = [[f"filtered {TESTED}, early stopping on it", *datasets]]
    names = SYSTEM_NAMES | {
        THREE_WITH_CONTENT: f"{THREE_WITH_CONTENT}, scores added (`fuse`)",
        DISTILLED_PREFIX + THREE_WITH_CONTENT: "**SICSRec, distilled from that sum (`distill`)**",
        SCORED_BY_CONTENT: f"**{SCORED_BY_CONTENT}**",
    }
    taught = (THREE_WITH_CONTENT, DISTILLED_PREFIX + THREE_WITH_CONTENT)
    for row in (SASREC, "unisrec_t_id", "missrec_t_id", SCORED_BY_CONTENT, *taught):
        cells = []
        for table in (filtered[dataset]["rows"] for dataset in datasets):
            complete = row in table and table[row]["seeds"] == table[SASREC]["seeds"]
            cells.append(f"{table[row]['filtered'][TESTED]['mean']:.4f}" if complete else "")
        if any(cells):
            rows.append([names.get(row, row), *cells])
    yield from table_lines(rows)


def page() -> str:
    """The whole of metrics/README.md."""
    tables = read_tables()
    lines = [
        "# Results",
        "",
        "Written by `python -m stages.tables.page` from the files beside it; do not edit. Text is all-MiniLM-L6-v2 on",
        "English titles, first-token vectors (`encoders.pooling=cls`), no covers; means over seeds; the paper's values",
        "are with covers.",
        "**kept**: viewed items stay in the ranking, the paper's protocol. **filtered**: they are left out, as a",
        "recommender would. p: paired randomisation test over users, Holm's correction over the rows of a table; bold",
        f"below {SIGNIFICANT}. How each table is run: [stages/tables/README.md](../stages/tables/README.md).",
        "",
    ]
    datasets = [name for name in in_order(tables.get("table4", {})) if name != "sample"]
    lines += [
        "## Which of the paper's claims hold",
        "",
        "How far the first is ahead of the second in ndcg@10, with the 95 % interval over users where the ranks are",
        f"in `runs/`. *holds* and *reversed*: p below {SIGNIFICANT}; *not shown*: neither.",
        "",
        *table_lines([*claim_cells(PAPER_CLAIMS, tables, datasets, SYSTEM_NAMES)]),
        "",
        "## Findings beyond the paper",
        "",
        "The same for what [stages/README.md](../stages/README.md#beyond-the-paper) adds to the paper's method.",
        "",
        *table_lines([*claim_cells(FURTHER_CLAIMS, tables, datasets, SYSTEM_NAMES)]),
        "",
    ]
    for name, by_dataset in tables.items():
        lines += [f"## {ALL_TABLES[name].title}", "", *differences(by_dataset), ""]
        for dataset, table in by_dataset.items():
            lines += by_training_count(table)
            lines += [
                "<details>",
                f"<summary>{titled(dataset)}: values</summary>",
                "",
                *values(table),
                "",
                "</details>",
                "",
            ]
    lines += [
        *latencies(sorted((METRICS / "tables").glob("fig4_*.json"))),
        *last_run_heading(read_json(METRICS / "table4.json")["dataset"]),
        "",
        (METRICS / "table4.md").read_text(encoding="utf-8").split("\n", 2)[2].strip(),
        "",
        "![Titles and covers before and after fine-tuning](pictures/alignment.png)",
        "",
        "![Histories after which SICSRec and its ID encoder recommend differently](pictures/cases.jpg)",
        "",
        "## Where the tables come from",
        "",
        *origins(tables, archived_runs(METRICS / "runs")),
    ]
    return "\n".join(lines) + "\n"


def latencies(paths: list[Path]) -> Iterator[str]:
    """Fig. 4 of each dataset that was measured: milliseconds of a batch of histories."""
    for path in paths:
        measured, dataset = read_json(path), path.stem.removeprefix("fig4_")
        yield f"## Fig. 4: latency, {dataset}"
        yield ""
        yield (
            f"Median milliseconds from a batch of histories to the scores of all items, on {measured['machine']}. The "
            "last row sorts them too: one request from the raw ids to ten items."
        )
        yield ""
        yield from latency_table(measured["rows"])
        yield ""
        yield "`python -m stages.bench.latency` after `dvc repro` with this dataset; MISSRec is untrained there."
        yield ""


def last_run_heading(dataset: str) -> list[str]:
    """Heading of the systems of the last `dvc repro`, which is of the sample unless the params name another dataset."""
    if dataset != "sample":
        return [f"## The last run: {dataset}"]
    return ["## The built-in sample", "", "Made to show that the pipeline works; it says nothing about the method."]


def readme() -> str:
    """README.md with its tables made again; that of the sample only if the last `dvc repro` was of the sample."""
    text, tables, last_run = README.read_text(encoding="utf-8"), read_tables(), read_json(METRICS / "table4.json")
    text = replace_between(text, RESULTS, [*readme_table(tables["table4"]), "", *readme_filtered(tables["filtered"])])
    if last_run["dataset"] != "sample":
        return text
    return replace_between(text, SAMPLE_RUN, ["```text", as_text(last_run), "```"])


def replace_between(text: str, marks: tuple[str, str], lines: list[str]) -> str:
    """README's text with other lines between two marks. Raises InputError when a mark is missing."""
    begin, end = marks
    if begin not in text or end not in text:
        raise InputError(f"{README} lacks the lines {begin} and {end}, between which a table stands: put them back")
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n" + "\n".join(lines) + f"\n\n{end}{rest.split(end)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.tables.page", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a page is out of date")
    options = parser.parse_args()
    for path, text in ((METRICS / "README.md", page()), (README, readme())):
        if options.check:
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                raise InputError(f"{path} is not what metrics/ gives: run `python -m stages.tables.page`")
            continue
        with atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(
        "up to date" if options.check else f"wrote {METRICS / 'README.md'} and the tables of {README}", file=sys.stderr
    )


if __name__ == "__main__":
    run_stage(main, options=True)
