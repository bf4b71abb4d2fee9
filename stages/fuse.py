"""The scores of several systems added and ranked: a row of its own. Validation chooses the weights.

Without `fuse` the outputs are empty.
"""

from pathlib import Path

from stages.errors import run_stage
from stages.files import is_main_process, read_parquet, write_json
from stages.params import Params, load_params
from stages.provenance import check_inputs
from stages.rank_files import write_no_ranks, write_ranks

SPLIT = Path("artifacts/split")
TEST = SPLIT / "test.parquet"
MODELS = Path("artifacts/baselines")
RANKS = Path("artifacts/ranks/fused.parquet")
METRICS = Path("metrics/fuse.json")


def remove_unlisted(systems: tuple[str, ...]) -> None:
    """Delete models of systems that params.yaml no longer lists: they would change the folder's hash."""
    for path in MODELS.glob("*.safetensors"):
        if path.stem not in systems and is_main_process():
            path.unlink()


def write_empty() -> None:
    """The outputs without `fuse`: no ranks, no metrics."""
    write_no_ranks(RANKS)
    write_json(METRICS, {})


def fuse(params: Params) -> str:
    """Choose the weights, rank the test items, write ranks and metrics. → a line on it."""
    # imported here: a run without `fuse` is two seconds shorter without torch
    from stages.parallel.device import choose_device
    from stages.training.fusion import choose_weights, fused_ranks, load_for_fusion, model_path, refuse_skipped
    from stages.training.metrics import mean_metrics_by_protocol
    from stages.training.next_item import TrainingData

    refuse_skipped(params.fuse)
    device, max_length = choose_device(params.device), params.sequence.max_length
    files = [model_path(name) for name in params.fuse]
    data = TrainingData.read(SPLIT, *files)
    models = [load_for_fusion(name, device) for name in params.fuse]
    weights, tried = choose_weights(models, data, monitor=params.monitor, max_length=max_length, device=device)

    test = read_parquet(TEST)
    known, targets = data.before_test(test), test["item"].to_numpy()
    ((kept, filtered),) = fused_ranks(models, [weights], known, targets, max_length=max_length, device=device)
    write_ranks(RANKS, test["user"], kept, filtered, check_inputs(TEST, *files))
    alone = {name: tuple(float(name == other) for other in params.fuse) for name in params.fuse}
    metrics = {
        **mean_metrics_by_protocol(kept, filtered),
        "weights": dict(zip(params.fuse, weights, strict=True)),
        "validation": tried[weights],
        "validation_alone": {name: tried[its_weights] for name, its_weights in alone.items()},
        "tried": {" ".join(map(str, each)): value for each, value in tried.items()},
    }
    write_json(METRICS, metrics)
    added = " + ".join(f"{weight:g} {name}" for name, weight in zip(params.fuse, weights, strict=True))
    return f"{added}, validation {params.monitor} {tried[weights]:.4f}, {test.height:,} users ranked"


def main() -> str:
    params = load_params()
    remove_unlisted(params.baselines)
    if not params.fuse:
        write_empty()
        return "nothing, as fuse=[]"
    return fuse(params)


if __name__ == "__main__":
    run_stage(main)
