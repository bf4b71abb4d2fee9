import torch

from stages.models.content_controls import control_vectors

torch.manual_seed(0)
VECTORS = {"text": torch.randn(50, 6), "image": torch.randn(50, 4)}


def test_by_default_every_item_gets_its_own_vectors():
    assert control_vectors(VECTORS, "own", 1) is VECTORS


def test_shuffled_vectors_are_those_of_another_item_in_all_modalities():
    found = control_vectors(VECTORS, "shuffled", 1)
    order = [int((VECTORS["text"] == row).all(dim=1).nonzero()) for row in found["text"]]
    assert sorted(order) == list(range(50))
    assert order != list(range(50))
    assert torch.equal(found["image"], VECTORS["image"][order])


def test_random_vectors_have_the_norms_of_the_items_and_other_directions():
    found = control_vectors(VECTORS, "random", 1)
    for name, matrix in VECTORS.items():
        torch.testing.assert_close(found[name].norm(dim=1), matrix.norm(dim=1))
        assert abs(torch.cosine_similarity(found[name], matrix, dim=1).mean()) < 0.3


def test_the_seed_decides_and_the_global_random_state_stays():
    before = torch.get_rng_state()
    for content in ("shuffled", "random"):
        first, same, other = (control_vectors(VECTORS, content, seed)["text"] for seed in (1, 1, 2))
        assert torch.equal(first, same)
        assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
