import pytest
import torch

from stages.encoders.embedding import refuse_useless_vectors
from stages.errors import InputError

ALL = torch.ones(4, dtype=torch.bool)


def vectors():
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def test_ordinary_vectors_pass():
    refuse_useless_vectors("text", vectors(), ALL)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_vectors_that_are_not_finite_are_refused_with_the_first_item(value):
    table = vectors()
    table[2, 1] = value
    with pytest.raises(InputError, match=r"image: 1 vectors are not finite \(first: item 3\): check image_encoder"):
        refuse_useless_vectors("image", table, ALL)


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_one_vector_for_all_items_is_refused(noise):
    table = vectors()[:1].expand(4, 3) + noise * vectors()
    with pytest.raises(InputError, match="text: all 4 items have the same vector: .* or leave text out of modalities"):
        refuse_useless_vectors("text", table, ALL)


def test_vectors_with_equal_components_are_refused():
    with pytest.raises(InputError, match="text: every vector is constant"):
        refuse_useless_vectors("text", torch.arange(4.0)[:, None].expand(4, 3), ALL)


def test_zero_vectors_are_refused():
    with pytest.raises(InputError, match="every vector is constant"):
        refuse_useless_vectors("text", torch.zeros(4, 3), ALL)


def test_items_without_content_do_not_hide_that_the_others_are_the_same():
    table = vectors()[:1].repeat(4, 1)
    table[3] = 7
    with pytest.raises(InputError, match="all 3 items have the same vector"):
        refuse_useless_vectors("image", table, torch.tensor([True, True, True, False]))


def test_two_items_with_the_same_content_are_no_fault():
    table = vectors()
    table[1] = table[0]
    refuse_useless_vectors("text", table, ALL)
