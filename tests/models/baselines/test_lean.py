import pytest
import torch

from stages.models.baselines.lean import SingleQueryAttention, TableAttention
from stages.models.layers import Attention

VISIBLE = torch.tensor([[True, True, True], [True, False, False]])


def twins(lean: type[Attention], rate: float = 0.0) -> tuple[Attention, Attention]:
    """A lean layer and a plain one with the same weights, biases included."""
    torch.manual_seed(0)
    plain, layer = Attention(dim=8, heads=2, dropout=rate), lean(dim=8, heads=2, dropout=rate)
    layer.load_state_dict(plain.state_dict())
    return layer, plain


def gradients(layer: Attention) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in layer.named_parameters()}


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_attention_of_a_single_query_equals_plain_attention(rate):
    layer, plain = twins(SingleQueryAttention, rate)
    query, memory = torch.randn(2, 8), torch.randn(2, 3, 8)
    torch.manual_seed(1)
    found = layer(query, memory, VISIBLE)
    torch.manual_seed(1)  # the same weights are dropped
    expected = plain(query[:, None], memory, VISIBLE)[:, 0]
    torch.testing.assert_close(found, expected)


def test_gradients_of_a_single_query_equal_those_of_plain_attention():
    layer, plain = twins(SingleQueryAttention)
    query, weight = torch.randn(2, 8), torch.randn(2, 8)
    memory, same_memory = (torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(2)) for _ in range(2))
    (layer(query, memory.requires_grad_(), VISIBLE) * weight).sum().backward()
    (plain(query[:, None], same_memory.requires_grad_(), VISIBLE)[:, 0] * weight).sum().backward()
    torch.testing.assert_close(memory.grad, same_memory.grad)
    torch.testing.assert_close(gradients(layer), gradients(plain))


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_attention_over_a_table_equals_plain_attention_over_its_gathered_rows(rate):
    layer, plain = twins(TableAttention, rate)
    table, indices = torch.randn(4, 8), torch.tensor([[3, 1, 3], [2, 0, 0]])
    torch.manual_seed(1)
    found = layer(table, indices, VISIBLE)
    torch.manual_seed(1)
    torch.testing.assert_close(found, plain(table[indices], table[indices], VISIBLE))
    found.square().sum().backward()
    ours = gradients(layer)
    torch.manual_seed(1)
    plain(table[indices], table[indices], VISIBLE).square().sum().backward()
    torch.testing.assert_close(ours, gradients(plain))
