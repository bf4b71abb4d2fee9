import numpy as np

from stages.tables.groups import count_groups, length_groups, metrics_by_count, metrics_by_group, popularity_groups


def test_every_user_is_in_exactly_one_group_of_each_grouping():
    rng = np.random.default_rng(0)
    lengths, targets, counts = rng.integers(1, 40, 300), rng.integers(1, 51, 300), rng.integers(0, 200, 50)
    for groups in (length_groups(lengths), popularity_groups(targets, counts), count_groups(targets, counts)):
        assert (np.stack(list(groups.values())).sum(axis=0) == 1).all()


def test_group_borders_of_history_length():
    groups = length_groups(np.array([4, 5, 9, 10, 19, 20, 500]))
    assert {name: np.flatnonzero(members).tolist() for name, members in groups.items()} == {
        "1-4": [0], "5-9": [1, 2], "10-19": [3, 4], "20+": [5, 6],
    }  # fmt: skip


def test_group_borders_of_the_training_count():
    counts = np.array([0, 1, 4, 5, 19, 20, 99, 100, 7000])
    groups = count_groups(np.arange(1, 10), counts)
    assert {name: np.flatnonzero(members).tolist() for name, members in groups.items()} == {
        "0": [0], "1-4": [1, 2], "5-19": [3, 4], "20-99": [5, 6], "100+": [7, 8],
    }  # fmt: skip


def test_the_head_is_the_most_popular_fifth_and_unseen_items_are_a_group_of_their_own():
    counts = np.array([9, 0, 5, 1, 1])
    groups = popularity_groups(np.array([1, 2, 3, 4, 5]), counts)
    assert groups["head"].tolist() == [True, False, False, False, False]
    assert groups["unseen"].tolist() == [False, True, False, False, False]
    assert groups["tail"].tolist() == [False, False, True, True, True]


def test_a_group_s_metrics_are_the_means_of_its_users():
    groups = {"a": np.array([True, False, True]), "b": np.array([False, True, False]), "none": np.zeros(3, dtype=bool)}
    result = metrics_by_group(groups, {"sicsrec": np.array([1, 20, 7])})
    assert set(result) == {"a", "b"}
    assert result["a"]["users"] == 2
    assert result["a"]["sicsrec"]["hit@5"] == 0.5
    assert result["a"]["sicsrec"]["hit@10"] == 1.0
    assert result["b"]["sicsrec"]["hit@10"] == 0.0


def test_metrics_by_count_are_the_means_over_the_users_of_each_group():
    result = metrics_by_count(np.array([1, 20, 7]), np.array([0, 3, 0]))
    assert result.keys() == {"0", "1-4"}
    assert (result["0"]["users"], result["0"]["hit@5"], result["0"]["hit@10"]) == (2, 0.5, 1.0)
    assert (result["1-4"]["users"], result["1-4"]["hit@10"]) == (1, 0.0)
