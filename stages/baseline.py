"""Another system of Table 4, trained and ranked like SICSRec: `python -m stages.baseline NAME`."""

import sys
from pathlib import Path

from safetensors.torch import save_file

from stages.errors import run_stage
from stages.files import atomic, read_parquet, write_json
from stages.models.systems import SYSTEMS, Scheme, named_system
from stages.parallel.device import choose_device
from stages.params import lacks_modality, load_params
from stages.provenance import check_inputs
from stages.rank_files import write_no_ranks, write_ranks
from stages.training.baselines import EMBEDDINGS, train
from stages.training.checkpoints import save_model
from stages.training.next_item import TrainingData, training_in_words
from stages.training.ranking import rank_users

SPLIT = Path("artifacts/split")
TEST = SPLIT / "test.parquet"
CURVES = Path("artifacts/curves/baselines")
RANKS = Path("artifacts/ranks")
MODELS = Path("artifacts/baselines")


def save_empty(name: str) -> None:
    """A file without tensors in place of a model that was not trained."""
    with atomic(MODELS / f"{name}.safetensors") as temporary:
        save_file({}, temporary)


def skip(name: str, why: str) -> None:
    """Write the outputs of a system that is not trained: no ranks, no model, and the reason."""
    (CURVES / name).mkdir(parents=True, exist_ok=True)
    write_no_ranks(RANKS / f"{name}.parquet", check_inputs(TEST))
    save_empty(name)
    write_json(RANKS / f"{name}.json", {"skipped": why})


def main() -> str:
    params, name = load_params(), named_system(sys.argv[1:])
    if why := lacks_modality(name, params.modalities):
        skip(name, why)
        return f"skipped: {why}"
    device, data = choose_device(params.device, params.precision), TrainingData.read(SPLIT, TEST, EMBEDDINGS)
    test = read_parquet(TEST)

    model, summary = train(name, params, data, CURVES / name, device)
    known = data.before_test(test)
    kept, filtered = rank_users(
        model.eval(), known, test["item"].to_numpy(), max_length=params.sequence.max_length, device=device
    )
    write_ranks(RANKS / f"{name}.parquet", test["user"], kept, filtered, data.inputs)
    write_json(RANKS / f"{name}.json", summary)
    save_model(MODELS / f"{name}.safetensors", model, data.inputs)
    if SYSTEMS[name].scheme is Scheme.COUNTED:
        return f"nothing is trained, validation {params.monitor} {summary[params.monitor]:.4f}"
    return training_in_words(summary, params.monitor)


if __name__ == "__main__":
    run_stage(main, options=True)
