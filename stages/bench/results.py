"""Results in `metrics/bench.json`: reuse of an earlier run's, and the table that is printed."""

from dataclasses import dataclass
from pathlib import Path

from stages.files import read_json

Result = dict[str, float | str]


@dataclass(frozen=True)
class Ratio:
    """A ratio, what it compares, and the bounds that it should lie in (Bili_Food on two cores)."""

    key: str
    compares: str
    least: float = 0.0
    most: float = float("inf")

    def line(self, value: float) -> str:
        """The ratio as it is printed, with its bounds, and whether it misses them."""
        bounds = f"at least {self.least:g}" if self.most == float("inf") else f"{self.least:g} to {self.most:g}"
        if not self.least:
            bounds = f"at most {self.most:g}" if self.most < float("inf") else ""
        missed = "" if self.least <= value <= self.most else "  missed"
        return f"{self.key:28} {value:8.2f}  {self.compares:69} {bounds}{missed}".rstrip()


RATIOS = (
    Ratio("pretrain_vs_recbole_len50", "epoch of RecBole's SASRec, histories padded to 50 : ours", least=85),
    Ratio("pretrain_vs_recbole_cut", "the same, padded to the 99th percentile of their lengths", least=18),
    Ratio("pretrain_vs_rectools_len50", "epoch of RecTools' SASRec, histories padded to 50 : ours", least=33),
    Ratio("pretrain_vs_rectools_cut", "the same, padded to the 99th percentile of their lengths", least=7),
    Ratio("to_score_vs_recbole_cut", "time to RecBole's best validation ndcg@10, RecBole : ours"),
    Ratio("evaluation_vs_recbole", "full ranking, RecBole : ours (which ranks in both protocols)", least=15),
    Ratio("posttrain_vs_pretrain", "epoch of posttrain : epoch of pretrain (lower is better)", most=1.6),
    Ratio("matmul_share", "FLOP/s in pretraining : FLOP/s of this machine's matrix products", least=0.7),
    Ratio("sft_cached_vs_naive", "fine-tuning, plain loop : cached trunk", least=15),
    Ratio("embed_sorted_vs_unsorted", "embedding, titles in file order : sorted by length", least=2),
    Ratio("growth_40k_to_10m", "time per interaction, 10 million : 40 thousand (1 is best)", 0.8, 1.2),
)


def earlier_results(path: Path, dataset: str, machine: str) -> Result:
    """Results of an earlier run on the same dataset and machine; without one, only these two values."""
    earlier = read_json(path) if path.is_file() else {}
    same = (earlier.get("dataset"), earlier.get("machine")) == (dataset, machine)
    return earlier if same else {"dataset": dataset, "machine": machine}


def table(result: Result) -> str:
    """The measured ratios, one per line with their bounds, then all other values."""
    ratios = {row.key for row in RATIOS}
    lines = [row.line(float(result[row.key])) for row in RATIOS if row.key in result]
    others = [f"{key:34} {_format(value)}" for key, value in sorted(result.items()) if key not in ratios]
    return "\n".join([*lines, "", *others])


def _format(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
