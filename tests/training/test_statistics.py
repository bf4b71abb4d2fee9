import numpy as np

from stages.training.statistics import interval


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
