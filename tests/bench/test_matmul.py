import pytest

from stages.bench.matmul import epoch_flops, matmul_rate
from stages.bench.training import epoch_batches, new_sasrec
from stages.params import load_params
from tests.bench.test_training import small_data


@pytest.fixture
def params(after):
    after("download")
    return load_params()


def test_operations_counted_are_those_of_the_matrix_products(params):
    data = small_data()
    model, dim = new_sasrec(params, 8), params.dim
    positions = 30 * 3
    linear = 2 * positions * dim * dim * 6 * params.sequence.layers  # four projections, two feed-forward layers
    logits = 2 * positions * dim * 8
    assert 3 * (linear + logits) <= epoch_flops(model, epoch_batches(params, data)) < 4 * (linear + logits)


def test_the_rate_of_the_machine_is_positive():
    assert matmul_rate(rows=64, dim=32, columns=(32, 64)) > 1e6
