import numpy as np
import polars as pl
import pytest
import torch

from stages.data.histories import Histories, training_batches, training_windows
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.params import METRICS, MONITORS, Schedule
from stages.tables.curves import read_curves
from stages.training.next_item import TrainingData, train_next_item, validation_metrics

CPU = torch.device("cpu")
SCHEDULE = Schedule(epochs=2, patience=2, batch_positions=8, learning_rate=0.01)


class Recording(Sasrec):
    """SASRec that records the batches it learns from, the seeds of its epochs and its sampler."""

    def __init__(self, config):
        super().__init__(config)
        self.batches, self.seeds, self.sizes = [], [], set()

    def start_epoch(self, seed):
        self.seeds.append(seed)

    def loss(self, items, targets):
        self.batches.append(items)
        self.sizes.add(self.sampler.size if self.sampler else None)
        return super().loss(items, targets)


@pytest.fixture
def data(tmp_path, monkeypatch) -> TrainingData:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"items": [(1 + rng.permutation(9)[:n]).tolist() for n in rng.integers(3, 7, size=12)]})
    histories = Histories.from_frame(frame)
    return TrainingData(histories, histories, rng.integers(1, 10, size=12), 9, (), {})


def train(data, folder, negatives="all", monitor="ndcg@10", schedule=SCHEDULE, **options):
    torch.manual_seed(0)
    model = Recording(SasrecConfig(items=9, dim=8, layers=1, heads=2, dropout=0.2, max_length=4))
    outcome = train_next_item(
        model, data, schedule, max_length=4, negatives=negatives, monitor=monitor, seed=5, name="test", identity=[],
        inputs=[], curves=folder / "curves", device=CPU, **options,
    )  # fmt: skip
    return model, outcome


def test_each_epoch_s_batches_are_drawn_from_the_seed_and_the_epoch(data, tmp_path):
    model, _ = train(data, tmp_path)
    windows = training_windows(data.histories, 4)
    expected = [
        batch.items
        for epoch in (1, 2)
        for batch in training_batches(data.histories, windows, 8, np.random.default_rng([5, epoch]))
    ]
    assert len(model.batches) == len(expected)
    assert all(torch.equal(batch, other) for batch, other in zip(model.batches, expected, strict=True))


def test_a_model_that_prepares_epochs_gets_another_seed_each_epoch(data, tmp_path):
    model, _ = train(data, tmp_path)
    assert model.seeds == [6, 7]


@pytest.mark.parametrize(("negatives", "size"), [("all", None), (3, 3)])
def test_the_loss_is_over_all_items_or_over_the_sampled_negatives(data, tmp_path, negatives, size):
    model, _ = train(data, tmp_path, negatives)
    assert model.sizes == {size}


@pytest.mark.parametrize(("negatives", "moves"), [("all", True), (1, False)])
def test_with_sampled_negatives_a_row_that_no_batch_touches_stays_as_it_was(data, tmp_path, negatives, moves):
    batch = (torch.tensor([[1, 2]]), torch.tensor([[2, 3]]))
    torch.manual_seed(0)
    before = Sasrec(SasrecConfig(items=9, dim=8, layers=1, heads=2, dropout=0.2, max_length=4)).item_embedding.weight
    model, _ = train(data, tmp_path, negatives, make_batches=lambda rng: [batch])
    same = (model.item_embedding.weight == before).all(dim=1)
    assert bool(same[1:].any()) != moves
    assert not same[1:4].any()


@pytest.mark.parametrize("monitor", MONITORS)
def test_the_best_epoch_is_that_with_the_best_monitor(data, tmp_path, monitor):
    model, outcome = train(data, tmp_path, monitor=monitor, schedule=SCHEDULE.model_copy(update={"epochs": 4}))
    metrics = validation_metrics(model, data.histories, data.valid, monitor=monitor, max_length=4, device=CPU)
    assert outcome.best == max(row[monitor] for row in outcome.rows) == metrics[monitor]
    assert {name: outcome.rows[outcome.best_epoch - 1][name] for name in metrics} == metrics


def test_the_curve_has_the_metrics_of_the_monitor_s_protocol_alone(data, tmp_path):
    train(data, tmp_path, monitor="filtered.ndcg@10")
    curves = read_curves(tmp_path / "curves")
    assert set(curves.columns) == {"epoch", "loss", *(f"filtered.{name}" for name in METRICS)}


def test_other_batches_can_be_given(data, tmp_path):
    batch = (torch.tensor([[1, 2]]), torch.tensor([[2, 3]]))
    model, _ = train(data, tmp_path, make_batches=lambda rng: [batch])
    assert [items.tolist() for items in model.batches] == [[[1, 2]]] * 2


@pytest.mark.parametrize("monitor", MONITORS)
def test_validation_metrics_are_those_of_a_plain_loop_over_users(data, monitor):
    torch.manual_seed(0)
    model = Sasrec(SasrecConfig(items=9, dim=8, layers=1, heads=2, dropout=0.2, max_length=4)).eval()
    metrics = validation_metrics(model, data.histories, data.valid, monitor=monitor, max_length=4, device=CPU)
    filtered, values = monitor.startswith("filtered."), []
    metric, cutoff = monitor.removeprefix("filtered.").split("@")
    for user, target in enumerate(data.valid):
        history = data.histories.values[data.histories.offsets[user] : data.histories.offsets[user + 1]]
        scores = model.item_matrix() @ model.hidden(torch.from_numpy(history[-4:])[None])[0, -1]
        hidden = set(history) - {target} if filtered else set()
        rank = int(sum(scores[item - 1] >= scores[target - 1] for item in range(1, 10) if item not in hidden))
        gain = 1.0 if metric == "hit" else 1 / np.log2(rank + 1)
        values.append(gain if rank <= int(cutoff) else 0.0)
    assert metrics[monitor] == pytest.approx(np.mean(values))
