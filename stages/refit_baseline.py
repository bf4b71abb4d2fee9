"""Another system of Table 4 trained once more, on training and validation items, and ranked: a row of its own.

`python -m stages.refit_baseline NAME`. Validation chose the epochs; nothing is chosen here. Without `refit` the output
is empty.
"""

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from stages.errors import run_stage
from stages.files import read_json, read_parquet
from stages.models.systems import named_system
from stages.params import Params, load_params
from stages.provenance import REFIT
from stages.rank_files import write_no_ranks, write_ranks

SPLIT = Path("artifacts/split")
RANKS = Path("artifacts/ranks")


def write_empty(name: str) -> None:
    """The output where nothing is trained: no ranks."""
    write_no_ranks(RANKS / f"{name}{REFIT}.parquet")


def refit(name: str, epochs: int, params: Params) -> str:
    """Train the system, rank the test items, write the ranks. → a line on it."""
    # imported here: a run without `refit` is two seconds shorter without torch
    from stages.data.histories import Histories
    from stages.parallel.device import choose_device
    from stages.training.baselines import EMBEDDINGS, train
    from stages.training.next_item import TrainingData
    from stages.training.ranking import rank_users

    device = choose_device(params.device, params.precision)
    data = TrainingData.read(SPLIT, SPLIT / "test.parquet", EMBEDDINGS, RANKS / f"{name}.parquet")
    frames = {part: read_parquet(SPLIT / f"{part}.parquet") for part in ("train", "valid", "test")}
    whole = replace(data, histories=Histories.with_validation(**frames))
    with TemporaryDirectory() as curves:  # without validation there is nothing to draw
        model, _ = train(name, params, whole, Path(curves) / name, device, epochs=epochs)
    test = frames["test"]
    kept, filtered = rank_users(
        model.eval(),
        data.before_test(test),
        test["item"].to_numpy(),
        max_length=params.sequence.max_length,
        device=device,
    )
    write_ranks(RANKS / f"{name}{REFIT}.parquet", test["user"], kept, filtered, data.inputs)
    return f"{epochs} epochs, {test.height:,} users ranked"


def main() -> str:
    params, name = load_params(), named_system(sys.argv[1:])
    trained = read_json(RANKS / f"{name}.json")
    if not params.refit or "best_epoch" not in trained:
        write_empty(name)
        return "nothing, as refit=false" if not params.refit else f"nothing, as {name} was not trained"
    return refit(name, trained["best_epoch"], params)


if __name__ == "__main__":
    run_stage(main, options=True)
