import numpy as np
import polars as pl
import torch

from stages.data.histories import Histories, training_batches, training_windows
from stages.models.sasrec import Sasrec, SasrecConfig


def small_model() -> Sasrec:
    torch.manual_seed(0)
    return Sasrec(SasrecConfig(items=30, dim=16, layers=2, heads=2, dropout=0.5, max_length=10)).eval()


def some_histories() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [(1 + rng.permutation(30)[:n]).tolist() for n in rng.integers(2, 10, size=40)]


def test_the_loss_at_all_positions_equals_the_loss_prefix_by_prefix():
    model, lists = small_model(), some_histories()
    histories = Histories.from_frame(pl.DataFrame({"items": lists}))
    batches = list(training_batches(histories, training_windows(histories, 10), 37, np.random.default_rng(1)))
    counts = torch.tensor([int((b.targets > 0).sum()) for b in batches])
    parallel = (torch.stack([model.loss(*b)["loss"] for b in batches]) * counts).sum() / counts.sum()

    prefixes = []
    for history in lists:
        for length in range(1, len(history)):
            state = model.hidden(torch.tensor([history[:length]]))[0, -1]
            scores = model.item_matrix() @ state
            prefixes.append(torch.logsumexp(scores, 0) - scores[history[length] - 1])
    torch.testing.assert_close(parallel, torch.stack(prefixes).mean(), atol=1e-5, rtol=1e-5)


def test_padding_changes_nothing():
    model = small_model()
    items = torch.tensor([[3, 1, 7]])
    padded = torch.tensor([[3, 1, 7, 0, 0]])
    torch.testing.assert_close(model.hidden(items), model.hidden(padded)[:, :3])
    torch.testing.assert_close(model.last_hidden(items), model.last_hidden(padded))
    torch.testing.assert_close(model.last_hidden(items), model.hidden(items)[:, 2])


def test_a_later_item_does_not_change_earlier_outputs():
    model = small_model()
    a, b = torch.tensor([[3, 1, 7, 2]]), torch.tensor([[3, 1, 9, 4]])
    assert torch.equal(model.hidden(a)[:, :2], model.hidden(b)[:, :2])


def test_weights_start_from_a_normal_of_width_two_hundredths():
    model = Sasrec(SasrecConfig(items=2000, dim=64, layers=1, heads=2, dropout=0.5, max_length=50))
    assert abs(model.item_embedding.weight.std().item() - 0.02) < 1e-3
    assert abs(model.position_embedding.weight.std().item() - 0.02) < 2e-3
    assert model.encoder.blocks[0].attention.query.bias.abs().max() == 0
