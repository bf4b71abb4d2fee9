import itertools

import numpy as np
import pytest

from stages.training.statistics import holm, interval, paired_p_value


def test_the_interval_is_near_that_of_a_normal_distribution():
    values = np.random.default_rng(0).normal(5, 2, size=2000)
    low, high = interval(values, resamples=1000, seed=1)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert abs(low - (values.mean() - half)) < 0.2 * half
    assert abs(high - (values.mean() + half)) < 0.2 * half


def test_the_interval_equals_percentiles_of_resampled_means():
    values = np.random.default_rng(0).exponential(size=30)
    means = values[np.random.default_rng(3).integers(0, 30, size=(250, 30))].mean(axis=1)
    assert interval(values, resamples=250, seed=3) == pytest.approx(np.percentile(means, [2.5, 97.5]).tolist())


@pytest.mark.parametrize("users", [1, 10])
def test_the_interval_of_equal_values_is_that_value(users):
    assert interval(np.full(users, 0.5), resamples=200, seed=0) == [0.5, 0.5]


def test_the_p_value_of_a_small_sample_is_that_of_all_sign_changes():
    left, right = np.array([0.9, 0.4, 0.8, 0.7, 0.6, 0.5]), np.array([0.5, 0.5, 0.3, 0.2, 0.4, 0.1])
    difference = left - right
    means = [np.mean(difference * signs) for signs in itertools.product([1, -1], repeat=6)]
    expected = 2 * min(np.mean(np.array(means) >= difference.mean() - 1e-12), 0.5)
    assert paired_p_value(left, right, resamples=9999, seed=0) == pytest.approx(expected)


def test_the_p_value_of_a_large_sample_depends_on_the_seed_alone_and_counts_the_resamples():
    rng = np.random.default_rng(0)
    left, right = rng.random(200), rng.random(200)
    p_values = [paired_p_value(left, right, resamples=99, seed=seed) for seed in (1, 1, 2)]
    assert p_values[0] == p_values[1] != p_values[2]
    assert p_values[0] * 100 / 2 == pytest.approx(round(p_values[0] * 100 / 2))  # two-sided: 2 (count + 1) / (99 + 1)


def test_the_p_value_of_equal_systems_is_1():
    values = np.arange(5.0)
    assert paired_p_value(values, values, resamples=99, seed=0) == 1.0


def test_holm_multiplies_the_smallest_by_the_number_of_tests_and_keeps_the_order():
    assert holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_one_user_alone_rejects_nothing() -> None:
    assert paired_p_value(np.array([1.0]), np.array([0.0]), resamples=100, seed=1) == 1.0
    assert interval(np.array([0.5]), resamples=100, seed=1) == [0.5, 0.5]
