"""SICSRec and its ID encoder trained once more, on training and validation items, and ranked: rows of their own.

Validation chose the epochs and the weight of content; nothing is chosen here. Without `refit` the outputs are empty.
"""

from dataclasses import replace
from pathlib import Path

from stages.errors import run_stage
from stages.files import read_parquet, write_json
from stages.params import OURS, Params, load_params
from stages.provenance import REFIT
from stages.rank_files import write_no_ranks, write_ranks

SPLIT = Path("artifacts/split")
TEST = SPLIT / "test.parquet"
INPUTS = [Path(f"artifacts/{name}") for name in ("embeddings.parquet", "id_encoder.safetensors", "sicsrec.safetensors")]
CURVES = Path("artifacts/curves/refit")
RANKS = Path("artifacts/ranks")
METRICS = Path("metrics/refit.json")


def write_empty() -> None:
    """The outputs without `refit`: no ranks, no metrics."""
    for name in OURS:
        write_no_ranks(RANKS / f"{name}{REFIT}.parquet")
    write_json(METRICS, {})
    write_json(CURVES / "summary.json", {})  # DVC warns of empty folders


def refit(params: Params) -> str:
    """Train both models, rank the test items, write ranks and metrics. → a line on it."""
    # imported here: a run without `refit` is two seconds shorter without torch
    from stages.data.histories import Histories
    from stages.parallel.device import choose_device
    from stages.training.metrics import mean_metrics_by_protocol
    from stages.training.next_item import TrainingData
    from stages.training.ranking import rank_users
    from stages.training.refit import Settings, refit_id_encoder, refit_sicsrec
    from stages.training.smoothing import smoothing_inputs

    data = TrainingData.read(SPLIT, TEST, *smoothing_inputs(params.smoothing), *INPUTS)
    train, valid, test = (read_parquet(SPLIT / f"{name}.parquet") for name in ("train", "valid", "test"))
    before_test = data.before_test(test)
    data = replace(data, histories=Histories.with_validation(train, valid, test))
    settings = Settings(
        max_length=params.sequence.max_length,
        negatives=params.loss.negatives,
        smoothing=params.smoothing,
        seed=params.seed,
        modalities=params.modalities,
        device=choose_device(params.device, params.precision),
    )
    encoder, encoder_epochs = refit_id_encoder(data, params.pretrain, settings)
    sicsrec, sicsrec_epochs = refit_sicsrec(data, params.posttrain, settings, encoder)
    summary = {}
    for name, model, epochs in (("id_encoder", encoder, encoder_epochs), ("sicsrec", sicsrec, sicsrec_epochs)):
        kept, filtered = rank_users(
            model, before_test, test["item"].to_numpy(), max_length=settings.max_length, device=settings.device
        )
        write_ranks(RANKS / f"{name}{REFIT}.parquet", test["user"], kept, filtered, data.inputs)
        summary[name] = mean_metrics_by_protocol(kept, filtered) | {"epochs": epochs}
    write_json(METRICS, summary)
    return f"ID encoder {encoder_epochs} epochs, SICSRec {sicsrec_epochs} epochs, {test.height:,} users ranked"


def main() -> str:
    params = load_params()
    if not params.refit:
        write_empty()
        return "nothing, as refit=false"
    return refit(params)


if __name__ == "__main__":
    run_stage(main)
