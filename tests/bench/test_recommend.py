import numpy as np
import pytest

from stages.bench.recommend import Size, clustered_vectors, measure_index, measure_recommending
from stages.params import load_params


def test_users_a_second_and_where_the_time_goes(after):
    after("download")
    measured = measure_recommending(load_params(), Size(users=600, items=150, dim=16))
    assert (measured["users"], measured["items"], measured["dim"]) == (600, 150, 16)
    assert measured["users_per_second"] > 0
    assert measured["user_tower_share"] > 0
    assert measured["topk_vs_selection"] > 0
    assert np.isfinite(measured["rest_vs_product_and_topk"])  # of so few users it may be below 0


def test_the_index_is_measured_by_recall_and_speed():
    measured = measure_index(Size(users=50, items=300, dim=16), seed=1)
    assert measured["recall_at_100"] == pytest.approx(1, abs=0.02)
    assert measured["users_per_second"] > 0
    assert measured["exact_users_per_second"] > 0
    assert measured["build_seconds"] > 0


def test_clustered_vectors_have_unit_length_and_near_neighbours():
    vectors = clustered_vectors(2000, 16, seed=1)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    assert cosines.max(axis=1).mean() > 0.8 > cosines.mean() + 0.5
