import pytest
import torch

from stages.models.baselines.table_attention import TableAttention
from stages.models.layers import Attention

VISIBLE = torch.tensor([[True, True, True], [True, False, False]])


def twins(rate: float) -> tuple[TableAttention, Attention]:
    """Attention over a table and plain attention with the same weights, biases included."""
    torch.manual_seed(0)
    plain, layer = Attention(dim=8, heads=2, dropout=rate), TableAttention(dim=8, heads=2, dropout=rate)
    layer.load_state_dict(plain.state_dict())
    return layer, plain


def gradients(layer: Attention) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in layer.named_parameters()}


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_attention_over_a_table_equals_plain_attention_over_its_gathered_rows(rate):
    layer, plain = twins(rate)
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
