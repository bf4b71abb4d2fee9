"""Which of the paper's claims hold, and further findings: one line each, in both protocols, for metrics/README.md."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stages.rank_files import PROTOCOLS
from stages.tables.markdown import SIGNIFICANT, TESTED, p_digits
from stages.tables.registry import (
    ABLATIONS,
    DISTILLED_PREFIX,
    FUSED_FILTERED,
    OURS,
    REFITTED,
    SASREC,
    SCORED_BY_CONTENT,
    STRATEGIES,
    THREE_WITH_CONTENT,
    WITHOUT_CONTENT,
)

Table = dict[str, Any]  # as summary.py writes it
BEST_OTHER = ""  # as `worse`: of the other rows the one with the highest mean
NOT_IN_PAPER = {"pop", "itemknn"}  # rows that the paper's table does not have


@dataclass(frozen=True)
class Claim:
    """`better` has a higher ndcg@10 than `worse`, both rows of the table, of which one is its reference."""

    text: str
    table: str
    better: str
    worse: str


PARTS = {name.removeprefix("without "): name for name in ABLATIONS if name.startswith("without ")}
PAPER_CLAIMS = (
    Claim("SICSRec is ahead of its ID encoder, SASRec", "table4", OURS, "sasrec"),
    Claim("SICSRec is ahead of the best other system", "table4", OURS, BEST_OTHER),
    *(Claim(f"{part} helps", "table7", "SICSRec", name) for part, name in PARTS.items()),
    Claim("IDs beside titles are better than titles alone", "table8", "SICSRec ID+T", "SICSRec T"),
    *(
        Claim(f"fixing the ID encoder is better than {name}", "table9", "fixed IDEnc", name)
        for name in STRATEGIES
        if name != "fixed IDEnc"
    ),
)
FURTHER_CLAIMS = (
    Claim("SICSRec, scored by content too, is ahead of SASRec, both stopped by filtered.ndcg@10",
          "filtered", SCORED_BY_CONTENT, SASREC),
    Claim("the same, each tuned on validation by the same number of trials", "tuned", SCORED_BY_CONTENT, SASREC),
    *(Claim(f"the scores of {names} added are ahead of SASRec's, stopped in the same way", "filtered", names, SASREC)
      for names in FUSED_FILTERED),
    *(Claim(f"SICSRec distilled from the sum of {names} is ahead of SASRec, stopped in the same way",
            "filtered", DISTILLED_PREFIX + names, SASREC) for names in FUSED_FILTERED),
    Claim("SICSRec distilled from three systems with content is ahead of one without, distilled from four without",
          "controls", DISTILLED_PREFIX + THREE_WITH_CONTENT, DISTILLED_PREFIX + WITHOUT_CONTENT),
    Claim("SICSRec without content, distilled from four systems without content, is ahead of SASRec",
          "controls", DISTILLED_PREFIX + WITHOUT_CONTENT, SASREC),
    Claim("SASRec trained again on training and validation items (refit) is ahead of SASRec trained on training items",
          "refit", SASREC + REFITTED, SASREC),
    Claim("SICSRec, scored by content too, is ahead of SASRec, both trained again on training and validation items",
          "refit", SCORED_BY_CONTENT + REFITTED, SASREC + REFITTED),
    *(Claim(f"{part} helps, all stopped by filtered.ndcg@10 and scored by content too",
            "ablations_filtered", "SICSRec", name) for part, name in PARTS.items()),
)  # fmt: skip


@dataclass(frozen=True)
class Effect:
    """How far `better` is ahead of `worse`, as a share of worse's mean. interval: 95 %, None where ranks are gone."""

    over: str  # the row that is `worse`
    gain: float
    interval: tuple[float, float] | None
    p_value: float

    def verdict(self) -> str:
        """Whether the paired test confirms the claim, contradicts it, or neither."""
        if self.p_value >= SIGNIFICANT:
            return "not shown"
        return "holds" if self.gain > 0 else "reversed"


def effect(claim: Claim, table: Table, protocol: str) -> Effect | None:
    """The claim's effect in one table and protocol; None where a row was not run with the same seeds, or has none."""
    rows, reference = table["rows"], table["reference"]
    means = {name: row[protocol][TESTED]["mean"] for name, row in rows.items()}
    others = [name for name in rows if name not in NOT_IN_PAPER | {claim.better}]
    worse = claim.worse or max(others, key=means.__getitem__, default="")
    if claim.better not in rows or not means.get(worse) or reference not in (claim.better, worse):
        return None
    if rows[claim.better]["seeds"] != rows[worse]["seeds"]:
        return None
    ahead = reference == claim.better  # the table holds the other row's difference from the reference
    tested = rows[worse if ahead else claim.better][protocol]
    bounds = tested.get("difference")
    if bounds and ahead:
        bounds = [-bound / (1 + bound) for bound in reversed(bounds)]
    gain = means[claim.better] / means[worse] - 1
    return Effect(worse, gain, tuple(bounds) if bounds else None, tested["p"])


def in_words(found: Effect | None, *, name: str | None) -> str:
    """`holds: +11.7% (+9.0% to +14.1%), p 0.022`. name: of the other system, where the claim does not say it."""
    if found is None:
        return ""
    bounds = f" ({found.interval[0]:+.1%} to {found.interval[1]:+.1%})" if found.interval else ""
    over = f" over {name}" if name else ""
    return f"{found.verdict()}: {found.gain:+.1%}{bounds}{over}, p {p_digits(found.p_value)}"


def claim_cells(
    claims: Sequence[Claim], tables: dict[str, dict[str, Table]], datasets: list[str], names: dict[str, str]
) -> Iterator[list[str]]:
    """The head and a row for each claim that was run: its effect in both protocols. names: of systems, in words.

    Datasets on which no claim was run have no column.
    """
    found = {
        (claim, dataset, protocol): effect(claim, tables[claim.table][dataset], protocol)
        for claim in claims
        for dataset in datasets
        for protocol in PROTOCOLS
        if dataset in tables.get(claim.table, {})
    }
    columns = [
        (dataset, protocol)
        for dataset in datasets
        if any(found.get((claim, dataset, protocol)) for claim in claims for protocol in PROTOCOLS)
        for protocol in PROTOCOLS
    ]
    yield ["claim", *(f"{dataset}, {protocol}" for dataset, protocol in columns)]
    for claim in claims:
        cells = []
        for column in columns:
            what = found.get((claim, *column))
            over = names.get(what.over, what.over) if what and claim.worse == BEST_OTHER else None
            cells.append(in_words(what, name=over))
        if any(cells):
            yield [claim.text, *cells]
