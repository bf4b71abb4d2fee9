"""SICSRec trained once more, by the sum of scores of `fuse` beside the next items, and ranked: a row of its own.

Without `distill` the outputs are empty.
"""

from pathlib import Path

from stages.errors import InputError, run_stage
from stages.files import atomic, read_json, read_parquet, write_json
from stages.params import Params, load_params
from stages.rank_files import write_no_ranks, write_ranks

SPLIT = Path("artifacts/split")
TEST = SPLIT / "test.parquet"
CURVES = Path("artifacts/curves/distill")
MODEL = Path("artifacts/distilled.safetensors")
RANKS = Path("artifacts/ranks/distilled.parquet")
WEIGHTS = Path("metrics/fuse.json")
METRICS = Path("metrics/distill.json")


def write_empty() -> None:
    """The outputs without `distill`: a model without tensors, no ranks, no metrics."""
    from safetensors.numpy import save_file

    with atomic(MODEL) as temporary:
        save_file({}, temporary)
    write_no_ranks(RANKS)
    write_json(METRICS, {})
    write_json(CURVES / "summary.json", {})  # DVC warns of empty folders


def teachers(params: Params) -> dict[str, float]:
    """The systems whose scores are taught, with the weights above 0 that `fuse` chose.

    Raises InputError when metrics/fuse.json is of another list of systems.
    """
    weights = read_json(WEIGHTS).get("weights", {})
    if weights.keys() != {*params.fuse}:
        raise InputError(f"{WEIGHTS} has no weights of fuse=[{', '.join(params.fuse)}]: run `dvc repro fuse`")
    return {name: weight for name, weight in weights.items() if weight > 0}


def distill(params: Params) -> str:
    """Train the model, rank the test items, write model, ranks and metrics. → a line on it."""
    # imported here: a run without `distill` is two seconds shorter without torch
    from stages.parallel.device import choose_device
    from stages.training.checkpoints import save_model
    from stages.training.distillation import EMBEDDINGS, ID_ENCODER, SICSREC, train
    from stages.training.fusion import model_path
    from stages.training.metrics import mean_metrics_by_protocol
    from stages.training.next_item import TrainingData, training_in_words
    from stages.training.ranking import rank_users
    from stages.training.smoothing import smoothing_inputs

    weights = teachers(params)
    inputs = [EMBEDDINGS, *smoothing_inputs(params.smoothing), ID_ENCODER, SICSREC, *map(model_path, weights)]
    data = TrainingData.read(SPLIT, TEST, *inputs)
    device = choose_device(params.device, params.precision)
    model, summary = train(params, data, weights, CURVES, device)
    save_model(MODEL, model, data.inputs)
    write_json(CURVES / "summary.json", summary)

    test = read_parquet(TEST)
    kept, filtered = rank_users(
        model, data.before_test(test), test["item"].to_numpy(), max_length=params.sequence.max_length, device=device
    )
    write_ranks(RANKS, test["user"], kept, filtered, data.inputs)
    write_json(METRICS, mean_metrics_by_protocol(kept, filtered) | {"training": summary})
    return training_in_words(summary, params.monitor)


def main() -> str:
    params = load_params()
    if not params.distill:
        write_empty()
        return "nothing, as distill=0"
    return distill(params)


if __name__ == "__main__":
    run_stage(main)
