import numpy as np

from stages.serving.index import build_index, recall


def test_the_index_finds_the_items_with_the_highest_scores(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32)
    build_index(tmp_path / "index", vectors)
    assert recall(tmp_path / "index", vectors, vectors[:50] + 0.1, top=20) > 0.95


def test_an_index_of_other_vectors_has_a_low_recall(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32)
    build_index(tmp_path / "index", -vectors)
    assert recall(tmp_path / "index", vectors, vectors[:50], top=20) < 0.1


def test_the_same_vectors_give_the_same_file(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32)
    for name in ("one", "other"):
        build_index(tmp_path / name, vectors)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
