import numpy as np
import torch

from stages.models.baselines.vqrec import VqRec, VqRecConfig, optimised_codes


def reconstruction_error(vectors: np.ndarray, codes: np.ndarray) -> float:
    """Mean squared distance from the mean of the items that share a code, over the groups' own best means."""
    total = 0.0
    for group in codes.T:
        for code in np.unique(group):
            part = vectors[group == code]
            total += ((part - part.mean(axis=0)) ** 2).sum()
    return total


def test_similar_items_share_codes():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 12)) * 10
    topic = rng.integers(0, 5, size=200)
    vectors = centres[topic] + rng.normal(size=(200, 12)) * 0.01
    codes = optimised_codes(vectors, np.ones(200, dtype=bool), groups=3, centroids=5, seed=0)
    assert codes.shape == (200, 3)
    shuffled = rng.permutation(codes)
    assert reconstruction_error(vectors, codes) < 0.5 * reconstruction_error(vectors, shuffled)


def test_items_that_do_not_occur_in_training_do_not_change_the_codes_of_the_others():
    rng = np.random.default_rng(0)
    vectors, known = rng.normal(size=(60, 8)), np.arange(60) < 50
    changed = np.where(known[:, None], vectors, rng.normal(size=(60, 8)) * 100)
    a, b = (optimised_codes(v, known, groups=4, centroids=6, seed=0) for v in (vectors, changed))
    np.testing.assert_array_equal(a[known], b[known])
    assert set(a.ravel()) <= set(range(6))


def test_the_same_seed_gives_the_same_codes():
    vectors = np.random.default_rng(0).normal(size=(80, 8))
    known = np.ones(80, dtype=bool)
    np.testing.assert_array_equal(*(optimised_codes(vectors, known, groups=4, centroids=6, seed=3) for _ in range(2)))


def test_a_width_that_the_groups_do_not_divide_is_padded():
    vectors = np.random.default_rng(0).normal(size=(30, 7))
    assert optimised_codes(vectors, np.ones(30, dtype=bool), groups=3, centroids=4, seed=0).shape == (30, 3)


def test_an_item_is_the_mean_of_its_codes_rows():
    torch.manual_seed(0)
    codes = np.array([[0, 2], [1, 0], [2, 2]])
    model = VqRec(
        VqRecConfig(items=3, dim=8, dropout=0.5, layers=1, heads=2, max_length=5, groups=2, centroids=3), codes
    )
    table = model.code_embedding.weight
    expected = torch.stack([(table[1 + a] + table[1 + 3 + b]) / 2 for a, b in codes.tolist()])
    torch.testing.assert_close(model.item_vectors(torch.tensor([1, 2, 3])), expected)
    torch.testing.assert_close(model.item_vectors(torch.tensor([0])), table[:1])
