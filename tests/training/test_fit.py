import re

import pytest
import torch
from torch import nn

from stages.errors import InputError
from stages.training.fit import Plan, fit

PLAN = Plan(epochs=6, patience=3, monitor="score", learning_rate=0.05, seed=7)
CPU = torch.device("cpu")


class Line(nn.Module):
    """y = w x with dropout, so that a lost random state would show."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(4))

    def loss(self, x, y):
        predicted = nn.functional.dropout(x, 0.3, self.training) @ self.w
        return {"loss": ((predicted - y) ** 2).mean()}


def batches(epoch):
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(3):
        x = torch.randn(8, 4, generator=generator)
        yield x, x.sum(dim=1)


def run(folder, validate, plan=PLAN, batches=batches, model=None):
    model = model or Line()
    outcome = fit(model, batches, lambda: validate(model), plan, CPU, folder / "curves", folder / "state.pt")
    return model, outcome


def distance(model):
    return {"score": -float((model.w.detach() - 1).norm())}


def test_training_improves_the_score_and_keeps_the_best_weights(tmp_path):
    model, outcome = run(tmp_path, distance)
    assert outcome.rows[-1]["score"] > outcome.rows[0]["score"]
    assert distance(model)["score"] == outcome.best == max(row["score"] for row in outcome.rows)


def test_it_stops_after_patience_epochs_without_a_better_score(tmp_path, capsys):
    scores = iter([0.1, 0.3, 0.2, 0.2, 0.3, 0.9])
    _, outcome = run(tmp_path, lambda model: {"score": next(scores)})
    assert outcome.best_epoch == 2
    assert len(outcome.rows) == 5
    assert re.search(r"curves: 5 epochs in \d+ s, that of epoch 2 kept", capsys.readouterr().out)


class Interrupted(Exception):
    pass


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr("stages.training.fit.SECONDS_BETWEEN_STATES", 0.0)
    whole, outcome = run(tmp_path / "whole", distance)

    def broken(epoch):
        if epoch == 4:
            raise Interrupted
        return batches(epoch)

    with pytest.raises(Interrupted):
        run(tmp_path / "cut", distance, batches=broken)
    started = []

    def counted(epoch):
        started.append(epoch)
        return batches(epoch)

    resumed, again = run(tmp_path / "cut", distance, batches=counted)
    assert started == [4, 5, 6]
    assert torch.equal(resumed.w, whole.w)
    assert again.rows == outcome.rows
    assert not (tmp_path / "cut" / "state.pt").exists()
    curve = "curves/plots/metrics/score.tsv"
    assert (tmp_path / "cut" / curve).read_text() == (tmp_path / "whole" / curve).read_text()


def test_a_loss_that_is_not_finite_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="lower learning_rate"):
        run(tmp_path, distance, batches=lambda epoch: [(torch.full((1, 4), float("nan")), torch.zeros(1))])


def test_every_metric_has_a_live_curve(tmp_path):
    run(tmp_path, distance)
    assert {path.stem for path in (tmp_path / "curves" / "plots" / "metrics").iterdir()} == {
        "learning_rate",
        "loss",
        "positions_per_second",
        "score",
    }
