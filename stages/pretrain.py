"""Step one of the training strategy: the ID sequence encoder alone (paper sections 3.4.2 and 3.5.1)."""

from pathlib import Path

import torch

from stages.errors import run_stage
from stages.files import write_json
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.parallel.device import choose_device
from stages.params import Params, load_params
from stages.training.checkpoints import save_model
from stages.training.fit import IsHopeless, Outcome
from stages.training.next_item import TrainingData, train_next_item, training_in_words
from stages.training.smoothing import read_smoothing, smoothing_inputs

SPLIT = Path("artifacts/split")
CURVES = Path("artifacts/curves/pretrain")


def train(
    params: Params, data: TrainingData, curves: Path, is_hopeless: IsHopeless | None = None
) -> tuple[Sasrec, Outcome]:
    """The ID encoder with the weights of its best epoch. is_hopeless: see `fit`."""
    p, sequence, device = params.pretrain, params.sequence, choose_device(params.device, params.precision)
    torch.manual_seed(params.seed)
    config = SasrecConfig(items=data.items, dim=params.dim, dropout=p.dropout, **sequence.model_dump())
    model = Sasrec(config)
    outcome = train_next_item(
        model,
        data,
        p,
        max_length=sequence.max_length,
        negatives=params.loss.negatives,
        monitor=params.monitor,
        seed=params.seed,
        name="pretrain",
        identity=[vars(config), params.smoothing],
        inputs=smoothing_inputs(params.smoothing),
        curves=curves,
        device=device,
        smoothing=read_smoothing(params.smoothing),
        is_hopeless=is_hopeless,
    )
    return model, outcome


def main() -> str:
    params = load_params()
    data = TrainingData.read(SPLIT, *smoothing_inputs(params.smoothing))
    model, outcome = train(params, data, CURVES)
    save_model(Path("artifacts/id_encoder.safetensors"), model, data.inputs)
    write_json(CURVES / "summary.json", outcome.summary())
    return training_in_words(outcome.summary(), params.monitor)


if __name__ == "__main__":
    run_stage(main)
