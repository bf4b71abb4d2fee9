import pytest
import torch

from stages.bench.encoders import embedding, fine_tuning, padded_tokens
from stages.encoders.text import tiny_text_encoder

TITLES = [f"title {number} of {'many ' * (number % 7)}words" for number in range(30)]


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return tiny_text_encoder(TITLES, "cls", 64)


def test_the_plain_and_the_cached_loop_reach_the_same_loss_below_the_untrained_one(encoder):
    pairs = torch.randint(1, 31, (40, 2), generator=torch.Generator().manual_seed(0))
    rates = (3e-4, 3e-4)  # with 1e-3 forty steps of Adam turn rounding into 2 % of the loss
    result = fine_tuning(encoder, TITLES, pairs, batch_size=10, tau=0.05, rates=rates)
    assert result["sft_cached_loss"] == pytest.approx(result["sft_plain_loss"], rel=1e-3)
    untrained = fine_tuning(encoder, TITLES, pairs, batch_size=10, tau=0.05, rates=(0.0, 0.0))
    assert result["sft_cached_loss"] < untrained["sft_cached_loss"]


def test_the_benchmark_does_not_change_the_encoder(encoder):
    before = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    fine_tuning(encoder, TITLES, torch.tensor([[1, 2], [3, 4]]), batch_size=2, tau=0.05, rates=(1e-3, 1e-3))
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.model.state_dict().items())


def test_embedding_is_timed_in_both_orders(encoder):
    result = embedding(encoder, TITLES, 8)
    assert result.keys() == {f"embed_{o}_{unit}" for o in ("sorted", "unsorted") for unit in ("seconds", "tokens")}
    assert all(value > 0 for value in result.values())
    assert result["embed_sorted_tokens"] < result["embed_unsorted_tokens"]


def test_padded_tokens_are_the_longest_title_times_the_number_of_titles_per_batch():
    assert padded_tokens(torch.tensor([1, 5, 2, 2, 3]), 2) == 2 * 5 + 2 * 2 + 3
