import numpy as np
import pytest

from stages.bench.epoch_sample import BATCHES, growth, sample_epoch, synthetic_histories
from stages.params import load_params


@pytest.fixture
def params(after):
    after("download")
    return load_params()


def test_a_synthetic_log_has_the_requested_length():
    log = synthetic_histories(6000, seed=1)
    assert len(log.values) == pytest.approx(6000, rel=0.05)
    assert set(np.unique(log.lengths)) == set(range(3, 10))


@pytest.mark.parametrize("interactions", [4000, 8000, 20_000])
def test_a_sampled_epoch_has_a_fixed_number_of_batches_and_counts_all_targets(interactions):
    log = synthetic_histories(interactions, seed=1)
    epoch = sample_epoch(log, max_length=50, batch_positions=64, seed=1)
    assert len(epoch.sample) == BATCHES
    assert epoch.targets == len(log.values) - len(log.lengths)


def test_the_time_of_the_sample_is_extrapolated_to_all_targets():
    epoch = sample_epoch(synthetic_histories(20_000, seed=1), max_length=50, batch_positions=64, seed=1)
    sampled = sum(int((batch.targets > 0).sum()) for batch in epoch.sample)
    seconds = epoch.interactions * epoch.seconds_per_interaction(training_seconds=2.0) - epoch.batching_seconds
    assert seconds == pytest.approx(2.0 * epoch.targets / sampled)
    assert len({batch.items.shape[1] for batch in epoch.sample}) > 3  # short histories and long ones


def test_both_logs_are_measured(params):
    assert all(cost > 0 for cost in growth(params, small=10_000, large=20_000).values())
