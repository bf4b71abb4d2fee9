"""What `metrics/bench.json` keeps of an earlier run, and the table that is printed of it."""

from dataclasses import dataclass
from pathlib import Path

from stages.files import read_json

Result = dict[str, float | str]


@dataclass(frozen=True)
class Ratio:
    """A ratio, what it compares, and between what bounds it should be (on two cores and Bili_Food)."""

    key: str
    compares: str
    least: float = 0.0
    most: float = float("inf")

    def line(self, value: float) -> str:
        bounds = f"at least {self.least:g}" if self.most == float("inf") else f"{self.least:g} to {self.most:g}"
        if not self.least:
            bounds = f"at most {self.most:g}" if self.most < float("inf") else ""
        missed = "" if self.least <= value <= self.most else "  missed"
        return f"{self.key:28} {value:8.2f}  {self.compares:69} {bounds}{missed}".rstrip()


RATIOS = (
    Ratio("pretrain_vs_recbole_len50", "an epoch of RecBole's SASRec, histories padded to 50 : of ours", least=40),
    Ratio("pretrain_vs_recbole_cut", "the same, padded to what holds 99 % of the histories", least=8),
    Ratio("to_score_vs_recbole_cut", "RecBole's seconds to its best validation ndcg@10 : ours to as much"),
    Ratio("evaluation_vs_recbole", "RecBole's full ranking : ours, which does both protocols", least=8),
    Ratio("posttrain_vs_pretrain", "an epoch of the second step : of the first (lower is better)", most=3),
    Ratio("matmul_share", "arithmetic in pretraining : this machine's matrix products", least=0.5),
    Ratio("sft_cached_vs_naive", "fine-tuning, a plain loop : ours", least=5),
    Ratio("embed_sorted_vs_unsorted", "embedding, titles in their own order : by length", least=2),
    Ratio("growth_40k_to_10m", "an interaction's cost in 10 million : in 40 thousand (1 is best)", 0.8, 1.2),
)


def earlier_results(path: Path, dataset: str, machine: str) -> Result:
    """What another run measured on the same dataset and machine; else only these two."""
    earlier = read_json(path) if path.is_file() else {}
    same = (earlier.get("dataset"), earlier.get("machine")) == (dataset, machine)
    return earlier if same else {"dataset": dataset, "machine": machine}


def table(result: Result) -> str:
    """The ratios that were measured, a line each with its target, then everything else."""
    ratios = {row.key for row in RATIOS}
    lines = [row.line(float(result[row.key])) for row in RATIOS if row.key in result]
    others = [f"{key:34} {_shown(value)}" for key, value in sorted(result.items()) if key not in ratios]
    return "\n".join([*lines, "", *others])


def _shown(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
