import pytest
import timm
import torch
from torch import nn
from transformers import AlbertConfig, AlbertModel
from transformers.modeling_outputs import BaseModelOutput

from stages.encoders.cached_trunk import Tuned
from stages.encoders.image import ImageEncoder, load_image_encoder
from stages.encoders.text import tiny_text_encoder
from stages.encoders.text_loading import load_text_encoder
from stages.errors import InputError
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
        assert {group.values[0].device for group in part.cache} == {card if room else CPU}
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


AFTER_THE_BLOCK = {  # models with more than a norm, or something else, after the last block
    "efficientnet_b0": {},  # a convolution, a norm, an activation
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)},
    "regnetx_002": {},
    "mobilenetv3_small_050": {},
    "cait_xxs24_224": {"img_size": 32, "depth": 3, "embed_dim": 24, "num_heads": 2},  # blocks of two kinds
    "xcit_nano_12_p16_224": {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 2},
}


@pytest.mark.parametrize("name", AFTER_THE_BLOCK)
def test_what_a_timm_model_does_after_its_last_block_is_replayed(name):
    sizes = AFTER_THE_BLOCK[name]
    torch.manual_seed(0)
    encoder = ImageEncoder(timm.create_model(name, num_classes=12, **sizes).eval(), "head")
    side = sizes.get("img_size", 64)
    part = Tuned(encoder, {"pixels": torch.randn(4, 3, side, side)}, "last_block", fresh=False).eval()
    items = torch.tensor([2, 4, 1])
    whole = part(items)
    part.cache_trunk(3)
    assert part.cache
    torch.testing.assert_close(part(items), whole, atol=1e-5, rtol=1e-4)
    part.train()
    part(items).square().sum().backward()
    trained = {name for name, p in part.named_parameters() if p.requires_grad}
    assert {name for name, p in part.named_parameters() if p.grad is not None} == trained
    assert 0 < len(trained) < len(list(part.parameters()))


class LooksBack(nn.Module):
    """A text model whose output adds the embedding to the last layer's output: no function of that output alone."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, **inputs):
        output = self.model(**inputs)
        output.last_hidden_state = output.last_hidden_state + self.model.embeddings(inputs["input_ids"])
        return output


def test_a_model_that_cannot_be_run_from_its_last_block_trains_as_a_whole(tmp_path, capsys):
    part = text_part(tmp_path, "bert")
    part.encoder.model = LooksBack(part.encoder.model)
    part = Tuned(part.encoder, part.inputs, "last_block", fresh=False).eval()
    whole = part(ITEMS)
    part.cache_trunk(5)
    assert not part.cache
    assert "LooksBack: cannot be run from its last block on" in capsys.readouterr().out
    torch.testing.assert_close(part(ITEMS), whole)


def test_only_the_last_block_and_what_follows_it_drop_out_in_training(tmp_path):
    part = text_part(tmp_path, "t5").train()
    training = {name for name, module in part.named_modules() if module.training}
    assert all(
        name.startswith(("model.encoder.block.1", "model.encoder.final", "model.encoder.dropout", "head"))
        for name in training
    )
    assert "model.encoder.block.1" in training


def test_a_model_whose_layers_share_weights_is_refused_with_train_all_as_the_mend():
    torch.manual_seed(0)
    tiny = tiny_text_encoder(TITLES, "cls", 20)
    sizes = {"hidden_size": 16, "embedding_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    tiny.model = AlbertModel(AlbertConfig(vocab_size=300, num_hidden_layers=2, **sizes))
    with pytest.raises(InputError, match="AlbertModel runs its last block several times .* set sft.train=all"):
        Tuned(tiny, tiny.prepare(TITLES), "last_block", fresh=False)


def test_a_model_without_blocks_is_refused_with_train_all_as_the_mend():
    tiny = tiny_text_encoder(TITLES, "cls", 20)
    tiny.model = OneTable()
    with pytest.raises(InputError, match="OneTable has no blocks: set sft.train=all"):
        Tuned(tiny, tiny.prepare(TITLES), "last_block", fresh=False)


class OneTable(nn.Module):
    """A model of tokens that calls no module."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(300, 4))

    def forward(self, input_ids, attention_mask):
        return BaseModelOutput(last_hidden_state=self.table[input_ids])
