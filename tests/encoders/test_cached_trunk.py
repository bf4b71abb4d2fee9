import pytest
import torch

from stages.encoders.cached_trunk import Tuned
from stages.encoders.image import load_image_encoder
from stages.encoders.text import load_text_encoder
from tests.encoders.test_image import FAMILIES
from tests.encoders.test_image import saved as saved_image
from tests.encoders.test_text import MODELS
from tests.encoders.test_text import saved as saved_text
from tests.parallel.fake_cuda import fake_cuda

CPU = torch.device("cpu")

TITLES = [
    f"{topic} {number} video" + " of the week" * (index % 3)
    for topic in ("cake", "dance", "robot")
    for index, number in enumerate(("one", "two", "three", "four"))
]
ITEMS = torch.arange(1, 13)


def text_part(folder, kind, pooling="mean", train="last_block"):
    encoder = load_text_encoder(saved_text(folder, kind), pooling, 20)
    return Tuned(encoder, encoder.prepare(TITLES), train, fresh=False)


def image_part(folder, name, train="last_block"):
    torch.manual_seed(0)
    encoder = load_image_encoder(saved_image(folder, name), "head")
    size = FAMILIES[name].get("img_size", 64)
    return Tuned(encoder, {"pixels": torch.randn(12, 3, size, size)}, train, fresh=False)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_the_cached_text_encoder_gives_the_vectors_of_the_whole_one(tmp_path, kind, pooling, batch_size):
    part = text_part(tmp_path, kind, pooling).eval()
    chosen = torch.tensor([3, 11, 3, 7])
    plain = part(chosen)
    part.cache_trunk(batch_size)
    torch.testing.assert_close(part(chosen), plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", MODELS)
def test_batches_with_and_without_padding_are_joined_in_one_cache(tmp_path, kind):
    encoder = load_text_encoder(saved_text(tmp_path, kind), "mean", 20)
    titles = ["cake one video"] * 3 + ["cake video"] + [f"{'cake ' * n}video" for n in range(2, 12)]
    part = Tuned(encoder, encoder.prepare(titles), "last_block", fresh=False).eval()
    plain = part(torch.arange(1, 15))
    part.cache_trunk(1)  # one title per batch: of each length class, some batches have padding and some have none
    torch.testing.assert_close(part(torch.arange(1, 15)), plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_cached_image_encoder_gives_the_vectors_of_the_whole_one(tmp_path, name):
    part = image_part(tmp_path, name).eval()
    chosen = torch.tensor([3, 11, 3, 7])
    plain = part(chosen)
    part.cache_trunk(5)
    torch.testing.assert_close(part(chosen), plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("room", [True, False])
def test_the_cache_is_in_gpu_memory_if_it_fits(tmp_path, monkeypatch, room):
    monkeypatch.setattr("stages.encoders.cached_trunk.choose_placement", lambda size, device: device if room else CPU)
    part = text_part(tmp_path, "bert").eval()
    plain = part(ITEMS)
    with fake_cuda() as card:
        part.to(card).cache_trunk(5)
        assert {group.args[0].device for group in part.cache} == {card if room else CPU}
        vectors = part(ITEMS)
    torch.testing.assert_close(vectors.inner, plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_cached_encoder_gives_the_gradients_of_the_whole_one(tmp_path, kind, pooling):
    part = text_part(tmp_path, kind, pooling).eval()
    part(ITEMS).square().sum().backward()
    plain = {name: p.grad.clone() for name, p in part.named_parameters() if p.grad is not None}
    part.zero_grad()
    part.cache_trunk(5)
    part(ITEMS).square().sum().backward()
    for name, gradient in plain.items():
        torch.testing.assert_close(part.get_parameter(name).grad, gradient, atol=1e-4, rtol=1e-3)


def test_only_the_last_block_of_a_pretrained_encoder_trains(tmp_path):
    part = text_part(tmp_path, "bert")
    trains = {name for name, p in part.named_parameters() if p.requires_grad}
    assert trains
    assert all("encoder.layer.1." in name for name in trains)
    assert all(p.requires_grad for p in text_part(tmp_path / "all", "bert", train="all").parameters())
