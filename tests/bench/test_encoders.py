import pytest
import torch

from stages.bench.encoders import embedding, fine_tuning, padded_tokens
from stages.encoders.text import tiny_text_encoder

TITLES = [f"title {number} of {'many ' * (number % 7)}words" for number in range(30)]


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return tiny_text_encoder(TITLES, "cls", 64)


def test_the_plain_loop_and_ours_end_at_the_same_loss_which_has_fallen(encoder):
    pairs = torch.randint(1, 31, (40, 2), generator=torch.Generator().manual_seed(0))
    result = fine_tuning(encoder, TITLES, pairs, 10, 0.05, (1e-3, 1e-3))
    assert result["sft_cached_loss"] == pytest.approx(result["sft_plain_loss"], rel=1e-2)
    assert result["sft_cached_loss"] < fine_tuning(encoder, TITLES, pairs, 10, 0.05, (0.0, 0.0))["sft_cached_loss"]


def test_measuring_leaves_the_encoder_as_it_is(encoder):
    before = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    fine_tuning(encoder, TITLES, torch.tensor([[1, 2], [3, 4]]), 2, 0.05, (1e-3, 1e-3))
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.model.state_dict().items())


def test_titles_are_timed_in_both_orders(encoder):
    result = embedding(encoder, TITLES, 8)
    assert result.keys() == {f"embed_{o}_{unit}" for o in ("sorted", "unsorted") for unit in ("seconds", "tokens")}
    assert all(value > 0 for value in result.values())
    assert result["embed_sorted_tokens"] < result["embed_unsorted_tokens"]


def test_a_batch_has_as_many_tokens_as_its_longest_title_times_its_titles():
    assert padded_tokens(torch.tensor([1, 5, 2, 2, 3]), 2) == 2 * 5 + 2 * 2 + 3
