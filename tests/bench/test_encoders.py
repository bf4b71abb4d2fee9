import pytest
import torch

from stages.bench.encoders import embedding, fine_tuning
from stages.encoders.text import tiny_text_encoder

TITLES = [f"title {number} of {'many ' * (number % 7)}words" for number in range(30)]


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return tiny_text_encoder(TITLES, "cls", 64)


def test_the_plain_loop_and_ours_learn_the_same(encoder):
    pairs = torch.randint(1, 31, (40, 2), generator=torch.Generator().manual_seed(0))
    result = fine_tuning(encoder, TITLES, pairs, 10, 0.05, (1e-3, 1e-3))
    assert result["sft_cached_loss"] == pytest.approx(result["sft_plain_loss"], rel=1e-3)
    assert result["sft_cached_seconds"] > 0


def test_titles_are_timed_in_both_orders(encoder):
    assert all(value > 0 for value in embedding(encoder, TITLES, 8).values())
