import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stages.models.layers import Attention, FeedForward, TransformerEncoder, add_lora, dropout, initialise


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 0.3, 0.5, 0.9])
def test_dropout_zeroes_the_rounded_rate_and_scales_the_rest_to_match(rate):
    torch.manual_seed(0)
    x = torch.ones(1000, 101, requires_grad=True)
    dropped = dropout(x, rate, training=True)
    drawn = round(rate * 256) / 256  # one random byte per element
    assert (dropped == 0).float().mean().item() == pytest.approx(drawn, abs=0.005)
    torch.testing.assert_close(dropped[dropped > 0], torch.full_like(dropped[dropped > 0], 1 / (1 - drawn)))
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped)
    assert torch.equal(dropout(x, rate, training=False), x)


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.3, 0.95])
def test_dropout_keeps_the_mean(rate):
    torch.manual_seed(0)
    mean = torch.stack([dropout(torch.ones(1_000_000), rate, training=True).mean() for _ in range(20)]).mean()
    error = math.sqrt(rate / (1 - rate) / 20_000_000)
    assert abs(mean.item() - 1) < 4 * error


def test_a_dropout_rate_just_below_one_does_not_zero_everything():
    torch.manual_seed(0)
    assert 0 < dropout(torch.ones(10_000), 0.999, training=True).count_nonzero() < 100


def test_attention_equals_the_equation_written_out():
    torch.manual_seed(0)
    layer = Attention(dim=8, heads=2, dropout=0.5).eval()
    query, memory = torch.randn(3, 5, 8), torch.randn(3, 5, 8)
    expected = torch.zeros(3, 5, 8)
    for b in range(3):
        q, k, v = layer.query(query[b]), layer.key(memory[b]), layer.value(memory[b])
        for h in range(2):
            part = slice(4 * h, 4 * h + 4)
            for i in range(5):
                weights = torch.softmax(q[i, part] @ k[: i + 1, part].T / math.sqrt(4), dim=-1)
                expected[b, i, part] = weights @ v[: i + 1, part]
    expected = layer.norm(query + layer.output(expected))
    torch.testing.assert_close(layer(query, memory), expected, atol=1e-5, rtol=1e-5)


def test_feed_forward_equals_the_equation_written_out():
    torch.manual_seed(0)
    layer = FeedForward(dim=6, dropout=0.5).eval()
    x = torch.randn(4, 6)
    inner = layer.inner(x)
    gelu = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    torch.testing.assert_close(layer(x), layer.norm(x + layer.outer(gelu)))


def test_a_later_item_does_not_change_earlier_outputs():
    torch.manual_seed(0)
    encoder = TransformerEncoder(layers=2, dim=8, heads=2, dropout=0.5).eval()
    x = torch.randn(2, 6, 8)
    changed = x.clone()
    changed[:, 4:] = torch.randn(2, 2, 8)
    assert torch.equal(encoder(x)[:, :4], encoder(changed)[:, :4])
    assert not torch.equal(encoder(x)[:, 4:], encoder(changed)[:, 4:])


def test_a_weight_with_a_low_rank_update_starts_at_w0_and_is_w0_plus_b_a():
    torch.manual_seed(0)
    encoder = TransformerEncoder(layers=1, dim=8, heads=2, dropout=0.0)
    initialise(encoder)
    x = torch.randn(2, 3, 8)
    before = encoder(x)
    weight = encoder.blocks[0].attention.query.weight.detach().clone()
    add_lora(encoder, rank=2)
    assert torch.equal(before, encoder(x))
    lora = encoder.blocks[0].attention.query.parametrizations.weight[0]
    assert lora.a.abs().max() > 0
    with torch.no_grad():
        lora.b.normal_()
    torch.testing.assert_close(encoder.blocks[0].attention.query.weight, weight + lora.b @ lora.a)


def test_gradients_of_a_frozen_layer_s_low_rank_update_are_those_through_the_whole_weight():
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(8, 6)])
    layers.requires_grad_(False)
    add_lora(layers, rank=2)
    layer, x, weights = layers[0], torch.randn(2, 3, 8, requires_grad=True), torch.randn(2, 3, 6)
    lora = layer.parametrizations.weight[0]
    with torch.no_grad():
        lora.b.normal_()
    found, expected = layer(x), F.linear(x, layer.weight, layer.bias)
    assert torch.equal(found, expected)
    gradients = (torch.autograd.grad((y * weights).sum(), (x, lora.a, lora.b)) for y in (found, expected))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("rank", [1, 4])
def test_a_low_rank_update_has_that_rank(rank):
    encoder = TransformerEncoder(layers=1, dim=8, heads=2, dropout=0.0)
    add_lora(encoder, rank)
    lora = encoder.blocks[0].feed_forward.inner.parametrizations.weight[0]
    with torch.no_grad():
        lora.b.normal_()
    assert torch.linalg.matrix_rank(lora.b @ lora.a) == rank


VISIBLE = torch.tensor([[True, True, True], [True, False, False]])


def two_queries(layer: Attention, query: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """What `layer` computes for one query per row where it computes keys and values: beside a second query."""
    return layer(torch.stack([query, query], dim=1), memory, VISIBLE)[:, 0]


def test_attention_of_a_single_query_and_its_gradients_equal_those_beside_a_second_query():
    torch.manual_seed(0)
    layer = Attention(dim=8, heads=2, dropout=0.0)
    query, memory, weight = torch.randn(2, 8), torch.randn(2, 3, 8, requires_grad=True), torch.randn(2, 8)
    found, expected = layer(query[:, None], memory, VISIBLE)[:, 0], two_queries(layer, query, memory)
    torch.testing.assert_close(found, expected)
    inputs = [memory, *layer.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad((found * weight).sum(), inputs), torch.autograd.grad((expected * weight).sum(), inputs)
    )


def test_the_weights_of_a_single_query_are_dropped_out():
    torch.manual_seed(0)
    layer = Attention(dim=8, heads=2, dropout=0.5)
    layer.load_state_dict(layer.state_dict() | {"output.weight": torch.eye(8)})
    query, memory = torch.randn(1, 8), torch.randn(1, 3, 8)
    draws = torch.cat([layer(query[:, None], memory, VISIBLE[:1]) for _ in range(8)])
    assert len(draws.unique(dim=0)) > 4
    assert len(torch.cat([layer.eval()(query[:, None], memory, VISIBLE[:1]) for _ in range(8)]).unique(dim=0)) == 1
