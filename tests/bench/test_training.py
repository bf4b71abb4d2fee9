import numpy as np
import pytest
import torch

from stages.bench.training import (
    Data,
    epoch_flops,
    matmul_rate,
    new_sasrec,
    seconds_an_interaction,
    seconds_to_reach,
    synthetic_histories,
)
from stages.data.histories import Histories
from stages.params import load_params


@pytest.fixture
def params(after):
    after("download")
    return load_params()


def small_data() -> Data:
    histories = Histories(np.tile([1, 2, 3, 4], 30), np.arange(0, 121, 4))
    valid = np.full(30, 5)
    return Data(histories, valid, histories.extended(valid), np.full(30, 6), items=8)


def test_a_score_that_every_model_has_is_reached(params):
    assert 0 < seconds_to_reach(params, small_data(), goal=0.0) < 60


def test_operations_are_those_of_the_matrix_products(params):
    data = small_data()
    model, dim = new_sasrec(params, 8), params.dim
    positions = 30 * 3
    linear = 2 * positions * dim * dim * 6 * params.pretrain.layers  # four projections, two feed-forward layers
    logits = 2 * positions * dim * 8
    assert 3 * (linear + logits) <= epoch_flops(model, params, data) < 4 * (linear + logits)


def test_the_machine_multiplies():
    assert matmul_rate(64, 32, (32, 64)) > 1e6


def test_a_synthetic_log_is_as_long_as_asked_and_has_a_cost(params):
    log = synthetic_histories(6000, seed=1)
    assert len(log.values) == pytest.approx(6000, rel=0.05)
    assert set(np.unique(log.lengths)) == set(range(3, 10))
    assert seconds_an_interaction(params, 3000) > 0


def test_models_start_from_the_seed(params):
    first, second = (new_sasrec(params, 8).item_embedding.weight for _ in range(2))
    assert torch.equal(first, second)
