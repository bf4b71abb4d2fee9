"""Another trained system that recommends, and the systems of `fuse` whose scores are added: `--system NAME`."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from stages.errors import InputError
from stages.files import read_json, read_parquet
from stages.parallel.device import choose_device
from stages.params import OURS, Params
from stages.provenance import check_inputs
from stages.serving.arguments import FUSED
from stages.serving.trained import ITEMS
from stages.training.checkpoints import read_config
from stages.training.fusion import SumOfScores, load_for_fusion, load_system, model_path, refuse_skipped
from stages.training.metrics import mean_metrics
from stages.training.ranking import RankingModel

FUSED_RANKS = Path("artifacts/ranks/fused.parquet")
FUSED_METRICS = Path("metrics/fuse.json")


@dataclass(frozen=True)
class OtherSystem:
    """A system as `recommend_items` reads it; `Trained` is SICSRec's. files: what decides its recommendations."""

    model: RankingModel
    matrix: Tensor
    items: pl.DataFrame
    max_length: int
    files: tuple[Path, ...]

    @property
    def device(self) -> torch.device:
        return self.matrix.device

    @property
    def known_items(self) -> int:
        """How many of the items training knew: all."""
        return self.items.height


def load_other_system(name: str, params: Params) -> OtherSystem:
    """Any system but SICSRec, as the last `dvc repro` trained it; `fused` with the weights that validation chose.

    name: one of arguments.NAMES. Raises InputError when the system was not trained, on other items than the split's, or
    with another history length than params.yaml's, or when weights and models of `fused` are of different runs.
    """
    weights = _fused_weights(params) if name == FUSED else {name: 1.0}
    files = tuple(map(model_path, weights))
    for system, path in zip(weights, files, strict=True):
        if not path.is_file():
            mend = "run" if system in OURS else "add it to `baselines` and run"
            raise InputError(f"--system {name}: {system} was not trained: {mend} `dvc repro`")
    refuse_skipped([*weights])
    for path in files:
        _refuse_other_length(path, params.sequence.max_length)
    if name == FUSED:
        files += (FUSED_RANKS,)
    check_inputs(ITEMS, *files)
    device, items = choose_device(params.device), read_parquet(ITEMS)
    with torch.inference_mode():
        model: RankingModel
        if name == FUSED:
            model = SumOfScores([load_for_fusion(system, device) for system in weights], tuple(weights.values()))
        else:
            model = load_system(name).to(device)
        return OtherSystem(model, model.item_matrix(), items, params.sequence.max_length, files)


def _refuse_other_length(path: Path, max_length: int) -> None:
    trained = read_config(path).get("max_length", max_length)  # a system that counts has none
    if trained != max_length:
        raise InputError(
            f"{path} was trained with sequence.max_length={trained}, params.yaml has {max_length}: run `dvc repro`"
        )


def _fused_weights(params: Params) -> dict[str, float]:
    """The weights of the systems of `fuse` that have one above 0.

    They are in git, the ranks in DVC's cache: the metrics beside the weights say whether both are of one run.
    """
    metrics = read_json(FUSED_METRICS) if FUSED_METRICS.is_file() else {}
    weights = metrics.get("weights", {})
    if not params.fuse or weights.keys() != {*params.fuse}:
        raise InputError(
            f"--system {FUSED}: {FUSED_METRICS} has no weights of fuse=[{', '.join(params.fuse)}]: run "
            "`dvc exp run -S 'fuse=[sicsrec,id_encoder,itemknn]'`, or another list"
        )
    if any(metrics[key] != value for key, value in mean_metrics(read_parquet(FUSED_RANKS)["rank"].to_numpy()).items()):
        raise InputError(
            f"{FUSED_METRICS} and {FUSED_RANKS} are of different runs: run `dvc checkout` or `dvc repro fuse`"
        )
    return {name: weights[name] for name in params.fuse if weights[name] > 0}
