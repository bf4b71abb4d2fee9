import io
import pickle
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from stages.errors import InputError
from stages.training.fit import AbandonedError, Outcome, Plan, fit
from tests.parallel.fake_cuda import FakeCudaTensor, fake_cuda

PLAN = Plan(epochs=6, patience=3, monitor="score", learning_rate=0.05, seed=7)
CPU = torch.device("cpu")


class Line(nn.Module):
    """y = w x, with dropout so that a lost random state changes the result."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(4))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.dtypes = set()

    def loss(self, x, y, *_):
        predicted = nn.functional.dropout(x, 0.3, self.training) @ self.w
        self.dtypes.add(predicted.dtype)
        error = ((predicted - y) ** 2).mean()
        return {"loss": error, "half": error / 2}


def batches(epoch):
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(3):
        x = torch.randn(8, 4, generator=generator)
        yield x, x.sum(dim=1)


def run(folder, validate, plan=PLAN, batches=batches, model=None, device=CPU):
    model = model or Line()
    outcome = fit(model, batches, lambda: validate(model), plan, device, folder / "curves", folder / "state.pt")
    return model, outcome


def distance(model):
    return {"score": -float((model.w.detach() - 1).norm())}


def scripted(*scores):
    """A `validate` that returns these scores in turn, and the list of the weights that it was called with."""
    weights = []

    def validate(model):
        weights.append(model.w.detach().clone())
        return {"score": scores[len(weights) - 1]}

    return validate, weights


def curve(folder, name):
    """The points (step, value) of a live curve."""
    lines = (folder / "curves" / "plots" / "metrics" / f"{name}.tsv").read_text().splitlines()[1:]
    return [(int(line.split("\t")[0]), float(line.split("\t")[1])) for line in lines]


class Interrupted(Exception):
    pass


def until(epoch):
    """Batches of the epochs before `epoch`, at which the run is interrupted."""

    def interrupted(number):
        if number == epoch:
            raise Interrupted
        return batches(number)

    return interrupted


def test_training_improves_the_score_and_ends_with_the_best_weights(tmp_path):
    model, outcome = run(tmp_path, distance)
    assert outcome.rows[-1]["score"] > outcome.rows[0]["score"]
    assert distance(model)["score"] == outcome.best == max(row["score"] for row in outcome.rows)


def test_weights_and_losses_equal_those_of_a_plain_loop(tmp_path):
    model, outcome = run(tmp_path, distance)
    plain = Line()
    optimizer = torch.optim.Adam([plain.w], lr=0.05, fused=True)
    for epoch, row in enumerate(outcome.rows, start=1):
        torch.manual_seed(7 * 100_003 + epoch)
        losses = []
        for batch in batches(epoch):
            loss = plain.loss(*batch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert row["loss"] == pytest.approx(np.mean(losses))
        assert row["half"] == pytest.approx(np.mean(losses) / 2)
    assert torch.equal(model.w, plain.w)


def test_parameter_groups_have_their_own_learning_rates(tmp_path):
    model = Line()
    groups = [{"params": [model.w], "lr": 0.0}]
    fit(model, batches, dict, Plan(1, 1, None, 0.05, 7), CPU, tmp_path / "curves", tmp_path / "state.pt", groups)
    assert not model.w.any()


def test_the_model_is_validated_and_returned_in_evaluation_mode(tmp_path):
    modes = []

    def validate(model):
        modes.append(model.training)
        return distance(model)

    model, _ = run(tmp_path, validate)
    assert modes == [False] * 6
    assert not model.training


def test_the_model_is_trained_in_training_mode(tmp_path):
    class Recording(Line):
        modes = []

        def loss(self, *batch):
            self.modes.append(self.training)
            return super().loss(*batch)

    model, _ = run(tmp_path, distance, model=Recording())
    assert model.modes == [True] * 18


def test_it_stops_after_patience_epochs_without_a_better_score(tmp_path):
    validate, weights = scripted(0.1, 0.3, 0.2, 0.2, 0.3, 0.9)
    model, outcome = run(tmp_path, validate)
    assert outcome.best_epoch == 2
    assert len(outcome.rows) == 5
    assert torch.equal(model.w, weights[1])


def test_without_a_monitor_all_epochs_are_trained_and_the_last_weights_taken(tmp_path):
    plan = Plan(epochs=4, patience=1, monitor=None, learning_rate=0.05, seed=7)
    validate, weights = scripted(0.4, 0.3, 0.2, 0.1)
    model, outcome = run(tmp_path, validate, plan)
    assert (len(outcome.rows), outcome.best_epoch) == (4, 4)
    assert torch.equal(model.w, weights[3])


def test_the_summary_is_the_row_of_the_best_epoch():
    outcome = Outcome([{"loss": 3.0}, {"loss": 2.0}, {"loss": 1.0}], best_epoch=2, best=0.5)
    assert outcome.summary() == {"epochs": 3, "best_epoch": 2, "loss": 2.0}


def test_an_interrupted_run_continues_to_the_same_bits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("stages.training.fit.SECONDS_BETWEEN_STATES", 0.0)
    whole, outcome = run(tmp_path / "whole", distance)
    with pytest.raises(Interrupted):
        run(tmp_path / "cut", distance, batches=until(4))
    started = []

    def recorded(epoch):
        started.append(epoch)
        return batches(epoch)

    capsys.readouterr()
    resumed, again = run(tmp_path / "cut", distance, batches=recorded)
    assert started == [4, 5, 6]
    assert torch.equal(resumed.w, whole.w)
    assert again.rows == outcome.rows
    assert not (tmp_path / "cut" / "state.pt").exists()
    assert curve(tmp_path / "cut", "score") == curve(tmp_path / "whole", "score")
    assert capsys.readouterr().out == "curves: continues after epoch 3 of an interrupted run\n"


def test_a_resumed_run_ends_with_the_best_weights_from_before_the_interruption(tmp_path, monkeypatch):
    monkeypatch.setattr("stages.training.fit.SECONDS_BETWEEN_STATES", 0.0)
    validate, weights = scripted(0.1, 0.3, 0.2, 0.2, 0.2, 0.2)
    with pytest.raises(Interrupted):
        run(tmp_path, validate, batches=until(4))
    model, outcome = run(tmp_path, validate)
    assert outcome.best_epoch == 2
    assert torch.equal(model.w, weights[1])


def test_a_run_whose_epochs_are_all_in_the_state_trains_nothing_and_ends_with_the_best_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("stages.training.fit.SECONDS_BETWEEN_STATES", 0.0)
    validate, weights = scripted(0.1, 0.3, 0.2)
    with pytest.raises(Interrupted):
        run(tmp_path, validate, batches=until(4))
    model, outcome = run(tmp_path, validate, Plan(epochs=3, patience=3, monitor="score", learning_rate=0.05, seed=7))
    assert len(outcome.rows) == len(weights) == 3
    assert torch.equal(model.w, weights[1])
    assert not model.training


def test_a_state_with_anything_but_weights_and_numbers_is_not_loaded(tmp_path):
    torch.save({"model": Interrupted()}, tmp_path / "state.pt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only"):
        run(tmp_path, distance)


@pytest.mark.parametrize(("left", "zeros"), [(0, 0), (300, 0), (300, 8000)])
def test_a_state_that_was_cut_short_is_said_and_trained_anew(tmp_path, monkeypatch, capsys, left, zeros):
    monkeypatch.setattr("stages.training.fit.SECONDS_BETWEEN_STATES", 0.0)
    whole, _ = run(tmp_path / "whole", distance)
    with pytest.raises(Interrupted):
        run(tmp_path / "cut", distance, batches=until(4))
    state = tmp_path / "cut" / "state.pt"
    state.write_bytes(state.read_bytes()[:left] + bytes(zeros))  # zeros: as a crash of the machine may leave
    again, _ = run(tmp_path / "cut", distance)
    assert torch.equal(again.w, whole.w)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{state} cannot be read (")
    assert line.endswith("): the training starts anew")


def ticking(monkeypatch):
    """A clock that advances by two seconds each time it is read."""
    seconds = iter(range(100, 10_000, 2))
    monkeypatch.setattr("stages.training.fit.time", SimpleNamespace(monotonic=lambda: next(seconds)))


def test_the_state_is_saved_when_the_last_one_is_older_than_the_interval(tmp_path, monkeypatch):
    ticking(monkeypatch)  # read at the start, three times an epoch, and after saving
    monkeypatch.setattr("stages.training.fit.SECONDS_BETWEEN_STATES", 12.0)
    saved = []

    def validate(model):
        state = tmp_path / "state.pt"
        saved.append(len(torch.load(state)["outcome"]["rows"]) if state.is_file() else 0)
        return distance(model)

    run(tmp_path, validate)
    assert saved == [0, 0, 0, 3, 3, 3]


def test_curves_have_one_point_per_epoch_and_the_rate_counts_positions_that_are_not_padding(tmp_path, monkeypatch):
    ticking(monkeypatch)
    x = torch.tensor([[0.0, 1.0, 2.0, 0.0], [1.0, 0.0, 0.0, 0.0]])

    def three_positions_per_batch(epoch):
        return [(x, torch.zeros(2), np.zeros(2))] * 5

    _, outcome = run(tmp_path, distance, batches=three_positions_per_batch)
    assert curve(tmp_path, "positions_per_second") == [(step, 7.5) for step in range(4)]  # 15 in 2 s
    assert curve(tmp_path, "loss") == [(step, pytest.approx(row["loss"])) for step, row in enumerate(outcome.rows)]
    assert curve(tmp_path, "learning_rate") == [(step, 0.05) for step in range(4)]


def test_every_metric_has_a_live_curve(tmp_path):
    run(tmp_path, distance)
    names = {path.stem for path in (tmp_path / "curves" / "plots" / "metrics").iterdir()}
    assert names == {"half", "learning_rate", "loss", "positions_per_second", "score"}


def test_nothing_but_the_curves_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(tmp_path, distance)
    assert [path.name for path in tmp_path.iterdir()] == ["curves"]
    assert {path.name for path in (tmp_path / "curves").iterdir()} == {"metrics.json", "plots"}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_progress_bar_shows_the_best_epoch_the_score_and_the_rate(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    validate, _ = scripted(0.1, 0.3, 0.2, 0.2, 0.2)
    run(tmp_path, validate)
    last = terminal.getvalue().split("\r")[-1]
    assert last.startswith("curves: ")
    assert re.search(r"epoch/s|s/epoch", last)
    assert re.search(r"best=2, score=0.2, positions/s=\d+\]", last)


def test_without_a_monitor_the_progress_bar_shows_the_loss(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    run(tmp_path, distance, Plan(epochs=1, patience=1, monitor=None, learning_rate=0.05, seed=7))
    assert "best=1, loss=" in terminal.getvalue()


def test_a_rank_other_than_0_writes_and_prints_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("stages.training.fit.SECONDS_BETWEEN_STATES", 0.0)
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    run(tmp_path, distance)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == terminal.getvalue() == ""


def test_a_hopeless_run_is_abandoned_and_leaves_no_state(tmp_path, monkeypatch):
    monkeypatch.setattr("stages.training.fit.SECONDS_BETWEEN_STATES", 0.0)
    seen = []

    def is_hopeless(epoch, score):
        assert epoch == 1 or (tmp_path / "state.pt").is_file()
        seen.append((epoch, score))
        return epoch == 3

    validate, _ = scripted(0.1, 0.5, 0.2, 0.9)
    model = Line()
    with pytest.raises(AbandonedError):
        fit(
            model, batches, lambda: validate(model), PLAN, CPU, tmp_path / "curves", tmp_path / "state.pt",
            is_hopeless=is_hopeless,
        )  # fmt: skip
    assert seen == [(1, 0.1), (2, 0.5), (3, 0.2)]
    assert not (tmp_path / "state.pt").exists()


def test_a_loss_that_is_not_finite_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="^the loss is nan in epoch 1: lower learning_rate in params.yaml$"):
        run(tmp_path, distance, batches=lambda epoch: [(torch.full((1, 4), float("nan")), torch.zeros(1))])


def test_a_weight_that_is_not_finite_after_a_finite_loss_is_an_input_error(tmp_path):
    batch = torch.full((1, 4), 1e20), torch.full((1,), 1e19)  # the loss is 1e38, its gradient overflows
    with pytest.raises(InputError, match="^weights are not finite in epoch 1: lower learning_rate in params.yaml$"):
        run(tmp_path, distance, batches=lambda epoch: [batch])


def test_a_loss_is_the_mean_over_steps_and_processes(tmp_path):
    _, alone = run(tmp_path / "one", distance)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)  # the other process adds zeros
    _, shared = run(tmp_path / "two", distance)
    dist.destroy_process_group()
    assert [row["loss"] for row in shared.rows] == pytest.approx([row["loss"] / 2 for row in alone.rows])


def test_training_on_a_gpu_equals_training_on_the_cpu(tmp_path):
    expected, _ = run(tmp_path / "cpu", lambda model: {"score": 0.0})
    with fake_cuda() as gpu:
        model, _ = run(tmp_path / "gpu", lambda model: {"score": 0.0}, device=gpu)
    assert isinstance(model.w.data, FakeCudaTensor)
    torch.testing.assert_close(model.w.data.inner, expected.w.data)


@pytest.mark.parametrize(("supported", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_it_computes_in_bfloat16_where_the_device_supports_it(tmp_path, monkeypatch, supported, dtype):
    AcceleratorState._reset_state(True)
    monkeypatch.setattr("stages.training.fit.uses_bfloat16", lambda device: supported)
    model, _ = run(tmp_path, distance)
    AcceleratorState._reset_state(True)
    assert model.dtypes == {dtype}
