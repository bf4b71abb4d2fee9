import numpy as np
import pytest
import torch

from stages.bench.training import Data, new_sasrec, seconds_to_reach
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


def test_a_score_of_zero_is_reached(params):
    assert seconds_to_reach(params, small_data(), goal=0.0) > 0


def test_a_score_above_one_is_not_reached(params):
    assert seconds_to_reach(params, small_data(), goal=1.1) is None


def test_initial_weights_are_those_of_the_seed(params):
    first, second = (new_sasrec(params, 8).item_embedding.weight for _ in range(2))
    assert torch.equal(first, second)
