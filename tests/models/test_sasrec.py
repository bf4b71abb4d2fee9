import numpy as np
import polars as pl
import pytest
import torch

from stages.data.histories import Histories, training_batches, training_windows
from stages.models.layers import Attention, FeedForward, NormDropout
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.models.softmax import Sampler, next_item_loss

CONFIG = SasrecConfig(items=30, dim=16, layers=2, heads=4, dropout=0.25, max_length=10)


def small_model() -> Sasrec:
    torch.manual_seed(0)
    return Sasrec(CONFIG).eval()


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


def test_a_state_is_the_encoder_of_items_plus_positions():
    model = small_model()
    vectors = model.item_embedding.weight[[3, 1, 7]] + model.position_embedding.weight[[0, 1, 2]]
    expected = model.encoder(model.input(vectors)[None])
    torch.testing.assert_close(model.hidden(torch.tensor([[3, 1, 7]])), expected)
    assert len(model.encoder.blocks) == 2


def test_some_item_vectors_are_rows_of_the_item_matrix():
    model = small_model()
    assert torch.equal(model.candidates(torch.tensor([30, 1])), model.item_matrix()[[29, 0]])
    assert model.item_matrix().shape == (30, 16)


def test_with_a_sampler_the_loss_is_over_its_negatives():
    model, items, targets = small_model(), torch.tensor([[3, 1, 7]]), torch.tensor([[1, 7, 4]])
    assert model.sampler is None
    sampler = model.sampler = Sampler(torch.ones(30, dtype=torch.long), 8)
    torch.manual_seed(1)
    loss = model.loss(items, targets)["loss"]
    torch.manual_seed(1)
    expected = next_item_loss(model.hidden(items)[0], targets[0], model.candidates, sampler)
    torch.testing.assert_close(loss, expected)


def test_every_layer_has_the_rate_and_the_heads_of_the_configuration():
    for layer in small_model().modules():
        if isinstance(layer, Attention | FeedForward | NormDropout):
            assert layer.dropout == 0.25
        if isinstance(layer, Attention):
            assert layer.heads == 4


def test_padding_does_not_change_a_state():
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


def test_a_history_longer_than_max_length_is_refused():
    with pytest.raises(RuntimeError):
        small_model().hidden(torch.ones(1, 11, dtype=torch.long))


def test_weights_start_from_a_normal_with_standard_deviation_002():
    model = Sasrec(SasrecConfig(items=2000, dim=64, layers=1, heads=2, dropout=0.5, max_length=50))
    assert abs(model.item_embedding.weight.std().item() - 0.02) < 1e-3
    assert abs(model.position_embedding.weight.std().item() - 0.02) < 2e-3
    assert model.encoder.blocks[0].attention.query.bias.abs().max() == 0
