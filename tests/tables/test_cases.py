import numpy as np

from stages.tables.cases import different_cases


def test_cases_favour_either_model_and_the_largest_difference_of_ranks_comes_first():
    ours = np.array([1, 2, 9, 1, 50, 3, 1, 1])
    theirs = np.array([7, 90, 9, 1, 2, 4, 8, 300])
    assert different_cases(ours, theirs, np.ones(8, dtype=int)).tolist() == [7, 1, 6, 4]


def test_equal_differences_are_sorted_by_popularity_then_by_user():
    ours, theirs = np.array([1, 1, 1, 1]), np.array([9, 9, 9, 9])
    assert different_cases(ours, theirs, np.array([1, 5, 1, 5])).tolist() == [1, 3, 0]


def test_models_that_agree_have_no_cases():
    assert len(different_cases(np.array([1, 2]), np.array([1, 2]), np.array([1, 1]))) == 0
