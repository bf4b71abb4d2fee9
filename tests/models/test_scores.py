import pytest
import torch

from stages.models.scores import ALIGNMENT, ITEMS_PER_PRODUCT, aligned, inner_products


@pytest.mark.parametrize("items", [1, 15, 16, 17, 100, ITEMS_PER_PRODUCT + 1])
def test_inner_products_are_those_of_a_matrix_product_in_aligned_rows(items):
    torch.manual_seed(0)
    states, vectors = torch.randn(3, 8), torch.randn(items, 8)
    scores = inner_products(states, vectors)
    torch.testing.assert_close(scores, states @ vectors.T)
    assert scores.stride(0) % ALIGNMENT == 0


@pytest.mark.parametrize("items", [5, ITEMS_PER_PRODUCT + 5])
def test_the_result_is_written_to_memory_that_is_given(items):
    states, vectors = torch.randn(3, 8), torch.randn(items, 8)
    memory = torch.zeros(4 * aligned(items))  # of a block of users that may have been larger
    scores = inner_products(states, vectors, memory)
    assert scores.data_ptr() == memory.data_ptr()
    assert scores.equal(inner_products(states, vectors))


def test_a_gradient_can_be_asked_for():
    states, vectors = torch.randn(3, 8), torch.randn(5, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(inner_products(states, vectors).sum(), vectors)
    torch.testing.assert_close(gradient, states.sum(dim=0).expand(5, 8))
