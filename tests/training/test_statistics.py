import itertools

import numpy as np
import pytest

from stages.training.statistics import holm, interval, paired_p_value


def test_the_interval_is_near_the_normal_one():
    values = np.random.default_rng(0).normal(5, 2, size=2000)
    low, high = interval(values, 1000, seed=1)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert abs(low - (values.mean() - half)) < 0.2 * half
    assert abs(high - (values.mean() + half)) < 0.2 * half


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).random(100)
    assert interval(values, 200, seed=3) == interval(values, 200, seed=3)


def test_equal_values_have_no_width():
    assert interval(np.zeros(10), 200, seed=0) == [0.0, 0.0]


def test_the_randomisation_test_equals_all_sign_changes_of_a_small_sample():
    left, right = np.array([0.9, 0.4, 0.8, 0.7, 0.6, 0.5]), np.array([0.5, 0.5, 0.3, 0.2, 0.4, 0.1])
    difference = left - right
    means = [np.mean(difference * signs) for signs in itertools.product([1, -1], repeat=6)]
    expected = 2 * min(np.mean(np.array(means) >= difference.mean() - 1e-12), 0.5)
    assert paired_p_value(left, right, 9999, seed=0) == pytest.approx(expected)


def test_equal_systems_do_not_differ():
    values = np.arange(5.0)
    assert paired_p_value(values, values, 99, seed=0) == 1.0


def test_holm_multiplies_the_smallest_by_the_number_of_tests_and_keeps_the_order():
    assert holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []
