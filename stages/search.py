"""Search a system's params on validation: `python -m stages.search sicsrec --trials 12`.

Trials train as the stages do, on the artifacts of `dvc repro`, and are judged by validation `monitor`; the test items
are not read. The same command continues an interrupted search; a larger N adds trials.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from stages import posttrain, pretrain
from stages.errors import InputError, run_stage
from stages.files import cache_folder, read_json, write_json
from stages.models.systems import SYSTEMS
from stages.parallel.device import choose_device
from stages.params import Params, lacks_modality, load_params
from stages.training import baselines
from stages.training.checkpoints import save_model, state_path
from stages.training.fit import AbandonedError, DivergedError, IsHopeless
from stages.training.next_item import TrainingData
from stages.training.overrides import STAGE_PARAMS, Overrides, current_values, search_id, space_of, with_overrides
from stages.training.search_space import SPACES
from stages.training.smoothing import smoothing_inputs

if TYPE_CHECKING:  # imported where it is used: no other command needs it
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

METRICS = Path("metrics/search")
RANDOM_TRIALS = 5  # the current params and four random draws; from then on TPE chooses
UNPRUNED_TRIALS = 4  # complete trials before any is pruned
UNPRUNED_EPOCHS = 10  # that each trial trains before it is pruned
OVERRIDES = "overrides"  # attribute of a trial: the values that it trains with

Train = Callable[[Params, IsHopeless], dict[str, Any]]  # → the summary of the training


def trainer(system: str, params: Params, folder: Path) -> tuple[Train, TrainingData]:
    """The function that trains the system with a trial's params, and the data that all trials share.

    params: the current ones. folder: for the curves of the trial that is running.
    """
    if system == "id_encoder":
        data = TrainingData.read(pretrain.SPLIT, *smoothing_inputs(params.smoothing))
        return lambda p, is_hopeless: pretrain.train(p, data, folder / system, is_hopeless)[1].summary(), data
    if system == "sicsrec":
        data = TrainingData.read(posttrain.SPLIT, posttrain.EMBEDDINGS, *smoothing_inputs(params.smoothing))
        return lambda p, is_hopeless: train_sicsrec(p, data, folder, is_hopeless), data
    if why := lacks_modality(system, params.modalities):
        raise InputError(f"{why}: add it to modalities, or search another system")
    data = TrainingData.read(pretrain.SPLIT, baselines.EMBEDDINGS)
    device = choose_device(params.device, params.precision)

    def train(p: Params, is_hopeless: IsHopeless) -> dict[str, Any]:
        return baselines.train(system, p, data, folder / system, device, is_hopeless=is_hopeless)[1]

    return train, data


def train_sicsrec(params: Params, data: TrainingData, folder: Path, is_hopeless: IsHopeless) -> dict[str, Any]:
    """Both steps, of which only the second is pruned. If it is interrupted, the trial continues without the first."""
    settings = [getattr(params, key) for key in STAGE_PARAMS["pretrain"]]
    files = [*data.files, *smoothing_inputs(params.smoothing)]
    encoder = state_path("search_id_encoder", settings, files).with_suffix(".safetensors")
    if not encoder.is_file():
        model, _ = pretrain.train(params, data, folder / "pretrain")
        save_model(encoder, model, data.inputs)
    try:
        _, summary = posttrain.train(params, data, folder / "posttrain", encoder, is_hopeless)
    except (AbandonedError, DivergedError):
        encoder.unlink()
        raise
    encoder.unlink()
    return summary


def open_study(journal: Path, name: str) -> Study:
    """The study of this name in the journal, new or continued. A trial that was interrupted is marked as failed."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal))),
        study_name=name,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(UNPRUNED_TRIALS, UNPRUNED_EPOCHS),
        load_if_exists=True,
    )
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def finished(study: Study) -> list[FrozenTrial]:
    """The trials that count: complete or pruned, in their order."""
    from optuna.trial import TrialState

    return study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED])


def next_trial(study: Study, params: Params, system: str) -> Trial:
    """The next trial, with its values in the attribute OVERRIDES: the current params if they were not tried yet.

    It depends on the seed and the finished trials alone: an interrupted search continues with the same trials.
    """
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    done, space = finished(study), space_of(system, params)
    seed = int(np.random.default_rng([params.seed, len(done)]).integers(2**31))
    study.sampler = TPESampler(n_startup_trials=RANDOM_TRIALS, seed=seed)
    current = current_values(system, params)
    is_current = all(trial.user_attrs[OVERRIDES] != current for trial in done)
    if is_current and not study.get_trials(states=[TrialState.WAITING]):
        study.enqueue_trial({dimension.keys[0]: current[dimension.keys[0]] for dimension in space})
    trial = study.ask()
    values = {key: value for dimension in space for value in [dimension.suggest(trial)] for key in dimension.keys}
    trial.set_user_attr(OVERRIDES, current if is_current else values)
    return trial


def run_trial(study: Study, trial: Trial, train: Train, params: Params) -> FrozenTrial:
    """Train with the trial's values; it is finished by its validation `monitor`, or pruned."""
    from optuna.trial import TrialState

    def is_hopeless(epoch: int, value: float) -> bool:
        trial.report(value, epoch)
        return trial.should_prune()

    try:
        summary = train(with_overrides(params, trial.user_attrs[OVERRIDES]), is_hopeless)
    except (AbandonedError, DivergedError):
        return study.tell(trial, state=TrialState.PRUNED)
    scored = summary.get("content_weight", {})  # chosen after training
    return study.tell(trial, scored.get("validation", summary[params.monitor]))


def as_row(trial: FrozenTrial) -> dict[str, Any]:
    """A trial as it is written. value: validation `monitor`, of a pruned trial in its best epoch, if it had one."""
    values = trial.intermediate_values
    return {
        "state": trial.state.name.lower(),
        "value": trial.value if trial.state.name == "COMPLETE" else max(values.values(), default=None),
        "epochs": max(values, default=0),
        "params": trial.user_attrs[OVERRIDES],
    }


def as_options(overrides: Overrides) -> str:
    """The values as `dvc exp run` takes them."""
    return " ".join(f"-S {key}={value}" for key, value in overrides.items())


def search(system: str, params: Params, trials: int) -> Study:
    """Continue the system's search until it has `trials` finished trials; prints a line for each."""
    name, folder = f"{system}_{params.dataset}", cache_folder("search")
    train, data = trainer(system, params, folder / name)
    search_name = search_id(system, params, data.inputs)
    refuse_to_lose_trials(METRICS / f"{name}.json", search_name, trials)
    with search_lock(folder / f"{name}.lock"):
        study = open_study(folder / f"{name}.log", search_name)
        while (number := len(finished(study)) + 1) <= trials:
            began, trial = time.monotonic(), next_trial(study, params, system)
            row = as_row(run_trial(study, trial, train, params))
            value = "-" if row["value"] is None else f"{row['value']:.4f}"
            print(
                f"trial {number}/{trials}  {row['state']:<8}  {params.monitor} {value}  {row['epochs']} epochs  "
                f"{time.monotonic() - began:.0f} s  {as_options(trial.user_attrs[OVERRIDES])}",
                flush=True,
            )
    shutil.rmtree(folder / name, ignore_errors=True)  # the curves of the last trial
    return study


def refuse_to_lose_trials(path: Path, name: str, trials: int) -> None:
    """Raise InputError when `path` has more than `trials` trials and is not known to be of the search of this name."""
    if not path.is_file():
        return
    earlier = read_json(path)
    if earlier.get("id") != name and len(earlier["trials"]) > trials:
        raise InputError(
            f"{path} has {len(earlier['trials'])} trials of another search (monitor={earlier['monitor']}): move it "
            "away or remove it"
        )


@contextmanager
def search_lock(path: Path) -> Iterator[None]:
    """Hold the lock of one system's search. Raises InputError when another process has it."""
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout as error:
        raise InputError(f"another process has {path}: wait until it is finished") from error


def write_result(system: str, params: Params, study: Study) -> str:
    """Write metrics/search/SYSTEM_DATASET.json. → the command that trains with the best values."""
    rows = [as_row(trial) for trial in finished(study)]
    if all(row["state"] != "complete" for row in rows):
        raise InputError(f"no trial of {system} had a finite loss: lower the learning rates in params.yaml")
    best = study.best_trial
    overrides = best.user_attrs[OVERRIDES]
    if "tau" in overrides:
        overrides = overrides | {"sft.tau": params.sft.temperature(params.tau)}  # the item vectors stay as they are
    content = {
        "id": study.study_name,
        "system": system,
        "dataset": params.dataset,
        "monitor": params.monitor,
        "seed": params.seed,
        "best": overrides,
        "value": best.value,
        "trials": rows,
    }
    write_json(METRICS / f"{system}_{params.dataset}.json", content)
    if system not in SYSTEMS or system in params.baselines:
        return f"dvc exp run {as_options(overrides)}"
    return f"dvc exp run {as_options(overrides)} -S 'baselines=[{','.join([*params.baselines, system])}]'"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.search", description=__doc__)
    parser.add_argument("system", metavar="SYSTEM", help=", ".join(SPACES))
    parser.add_argument("--trials", metavar="N", type=int, required=True, help="finished trials, earlier ones included")
    arguments = parser.parse_args()
    system, trials = arguments.system, arguments.trials
    if system not in SPACES:
        reason = "nothing of it is trained" if system in SYSTEMS else "there is no such system"
        raise InputError(f"{system}: {reason}; there are {', '.join(SPACES)}")
    if trials < 1:
        raise InputError(f"--trials {trials}: 1 or more")
    params = load_params()
    study = search(system, params, trials)
    command = write_result(system, params, study)
    print(f"best validation {params.monitor} {study.best_value:.4f} of {len(finished(study))} trials:\n{command}")


if __name__ == "__main__":
    run_stage(main, options=True)
