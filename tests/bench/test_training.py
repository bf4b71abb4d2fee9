import numpy as np
import pytest
import torch

from stages.bench.training import Data, common_length, ndcg_of_test_items, new_sasrec, seconds_to_reach
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


def test_the_common_length_holds_99_of_100_histories_and_is_at_most_max_length(params):
    lengths = [3] * 99 + [40]
    histories = Histories(np.ones(sum(lengths), dtype=np.int64), np.concatenate([[0], np.cumsum(lengths)]))
    data = Data(histories, np.ones(100), histories.extended(np.ones(100)), np.ones(100), items=1)
    assert common_length(params, data) == 4  # with the validation item
    long = Histories(np.tile([1], 120), np.array([0, 120]))
    assert common_length(params, Data(long, np.ones(1), long, np.ones(1), items=1)) == params.sequence.max_length


def test_accuracy_is_measured_in_both_protocols(params):
    ours = ndcg_of_test_items(params, small_data())  # the target is among 8 items, 4 or 5 of which were viewed
    assert 0 < ours["kept"] < ours["filtered"] <= 1
