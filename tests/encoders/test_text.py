import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
)

from stages.encoders.text import tiny_text_encoder
from stages.encoders.text_loading import load_text_encoder
from stages.errors import InputError

TITLES = ["how to bake a cake", "麻辣火锅", "a much longer title about street dance battles and more", ""]
SMALL = {
    "vocab_size": 200,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
T5 = T5Config(vocab_size=200, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
MODELS = {
    "bert": lambda: BertModel(BertConfig(**SMALL)),
    "roberta": lambda: RobertaModel(RobertaConfig(**SMALL, pad_token_id=0)),
    "t5": lambda: T5EncoderModel(T5),
}


def saved(folder, kind):
    """A small model of that family with a tokenizer, as save_pretrained writes them."""
    torch.manual_seed(0)
    tiny_text_encoder(TITLES, "cls", 20).tokenizer.save_pretrained(folder)
    MODELS[kind]().save_pretrained(folder)
    return str(folder)


def encode(encoder, titles):
    encoder.model.eval()
    inputs = encoder.prepare(titles)
    with torch.no_grad():
        return encoder.pool(encoder.states(inputs), inputs)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_folder_of_each_family_loads_and_padding_changes_nothing(tmp_path, kind, pooling):
    encoder = load_text_encoder(saved(tmp_path, kind), pooling, 20)
    together = encode(encoder, TITLES)
    assert together.shape == (4, 16)
    for title, vector in zip(TITLES, together, strict=True):
        torch.testing.assert_close(encode(encoder, [title])[0], vector, atol=1e-5, rtol=1e-4)


def test_pooling_takes_the_first_token_or_the_mean_over_tokens(tmp_path):
    encoder = load_text_encoder(saved(tmp_path, "bert"), "cls", 20)
    inputs = encoder.prepare(TITLES[:1])
    states = encoder.states(inputs)
    torch.testing.assert_close(encoder.pool(states, inputs), states[:, 0])
    encoder.pooling = "mean"
    torch.testing.assert_close(encoder.pool(states, inputs), states.mean(dim=1))


def test_long_titles_are_cut(tmp_path):
    encoder = load_text_encoder(saved(tmp_path, "bert"), "cls", 6)
    assert encoder.prepare(TITLES)["input_ids"].shape == (4, 6)


def test_a_saved_encoder_gives_the_same_vectors(tmp_path):
    torch.manual_seed(0)
    encoder = tiny_text_encoder(TITLES, "cls", 20)
    encoder.save(tmp_path)
    again = load_text_encoder(str(tmp_path), "cls", 20)
    torch.testing.assert_close(encode(again, TITLES), encode(encoder, TITLES))
    assert AutoTokenizer.from_pretrained(tmp_path).cls_token == "[CLS]"


def test_the_tiny_encoder_comes_from_the_seed():
    vectors, vocabularies = [], []
    for _ in range(5):
        torch.manual_seed(5)
        encoder = tiny_text_encoder(TITLES, "cls", 20)
        vectors.append(encode(encoder, TITLES))
        vocabularies.append(encoder.tokenizer.get_vocab())
    assert all(vocabulary == vocabularies[0] for vocabulary in vocabularies)
    assert all(torch.equal(vector, vectors[0]) for vector in vectors)


def test_an_absent_encoder_is_an_input_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="text_encoder=nobody/nothing"):
        load_text_encoder("nobody/nothing", "cls", 20)


def test_a_folder_without_weights_is_an_input_error(tmp_path):
    saved(tmp_path, "bert")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        load_text_encoder(str(tmp_path), "cls", 20)
