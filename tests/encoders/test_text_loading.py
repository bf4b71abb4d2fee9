import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import (
    BartConfig,
    BartModel,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    MT5Config,
    MT5Model,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
    SiglipConfig,
    SiglipModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
    WhisperConfig,
    WhisperModel,
    XLNetConfig,
    XLNetModel,
)

from stages.encoders.cached_trunk import Tuned
from stages.encoders.text import tiny_text_encoder
from stages.encoders.text_loading import load_text_encoder
from stages.errors import InputError
from tests.encoders.test_text import SMALL, TITLES, encode

VOCABULARY = 300
BART = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
}  # fmt: skip
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_heads": 2}
QWEN = SMALL | {"num_key_value_heads": 2, "head_dim": 8, "vocab_size": VOCABULARY}
SIDE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
TEXT_SIDE = SIDE | {"vocab_size": VOCABULARY, "max_position_embeddings": 24, "eos_token_id": 3}
IMAGE_SIDE = SIDE | {"image_size": 16, "patch_size": 8}
BERT = BertConfig(**SMALL | {"vocab_size": VOCABULARY})

# model → how it pools by itself
MODELS = {
    "bert": (lambda: BertModel(BERT), "cls"),
    "bert_for_masked_lm": (lambda: BertForMaskedLM(BERT), "cls"),
    "roberta": (lambda: RobertaModel(RobertaConfig(**SMALL | {"vocab_size": VOCABULARY}, pad_token_id=0)), "cls"),
    "distilbert": (
        lambda: DistilBertModel(DistilBertConfig(vocab_size=VOCABULARY, dim=16, n_layers=2, n_heads=2, hidden_dim=16)),
        "cls",
    ),
    "t5": (lambda: T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, **T5)), "mean"),
    "mt5": (lambda: MT5Model(MT5Config(vocab_size=VOCABULARY, **T5)), "mean"),
    "bart": (lambda: BartModel(BartConfig(vocab_size=VOCABULARY, max_position_embeddings=64, **BART)), "mean"),
    "gpt2": (lambda: GPT2Model(GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2)), "last"),
    "qwen3": (lambda: Qwen3Model(Qwen3Config(**QWEN, pad_token_id=0)), "last"),
    "clip": (
        lambda: CLIPModel(CLIPConfig(text_config=TEXT_SIDE, vision_config=IMAGE_SIDE, projection_dim=16)), "own"
    ),
    "clip_text_model": (lambda: CLIPTextModel(CLIPTextConfig(**TEXT_SIDE)), "own"),
    "siglip": (lambda: SiglipModel(SiglipConfig(text_config=TEXT_SIDE, vision_config=IMAGE_SIDE)), "own"),
}  # fmt: skip
WHISPER = WhisperConfig(
    **BART | {"encoder_layers": 1}, vocab_size=VOCABULARY, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    decoder_start_token_id=1,
)  # fmt: skip
OTHERS = {"vit": lambda: ViTModel(ViTConfig(**IMAGE_SIDE)), "whisper": lambda: WhisperModel(WHISPER)}


def saved(folder, kind, dtype=torch.float32):
    """A small model of that kind with a tokenizer, as save_pretrained writes them."""
    torch.manual_seed(0)
    tiny_text_encoder(TITLES, "cls", 20).tokenizer.save_pretrained(folder)
    MODELS[kind][0]().to(dtype).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_model_pools_as_its_kind_does_and_tells_titles_apart(tmp_path, kind, capsys):
    encoder = load_text_encoder(saved(tmp_path, kind), "auto", 20)
    assert encoder.pooling == MODELS[kind][1]
    assert f"vectors by {MODELS[kind][1]}" in capsys.readouterr().out
    vectors = encode(encoder, TITLES)
    assert vectors.shape == (4, 16)
    assert torch.cdist(vectors, vectors)[~torch.eye(4, dtype=torch.bool)].min() > 1e-4
    torch.testing.assert_close(encode(encoder, TITLES[:1])[0], vectors[0], atol=1e-5, rtol=1e-4)  # without padding


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_model_is_fine_tuned_to_what_embedding_computes_and_saved(tmp_path, kind):
    encoder = load_text_encoder(saved(tmp_path / "source", kind), "auto", 20)
    part = Tuned(encoder, encoder.prepare(TITLES), "last_block", fresh=False).eval()
    items = torch.arange(1, 5)
    whole = part(items)
    part.cache_trunk(2)
    torch.testing.assert_close(part(items), whole, atol=1e-5, rtol=1e-4)
    optimizer = torch.optim.SGD([p for p in part.parameters() if p.requires_grad], lr=0.1)
    part.train()
    part(items).square().sum().backward()
    optimizer.step()
    part.eval()
    encoder.save(tmp_path / "saved")
    again = load_text_encoder(str(tmp_path / "saved"), "auto", 20)
    tuned = part(items).detach()
    assert not torch.allclose(tuned, whole)
    torch.testing.assert_close(encode(again, TITLES), tuned, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "t5", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_computed_in_float32(tmp_path, kind, dtype):
    encoder = load_text_encoder(saved(tmp_path, kind, dtype), "auto", 20)
    assert {p.dtype for p in encoder.model.parameters()} == {torch.float32}
    assert encode(encoder, TITLES).dtype == torch.float32


@pytest.mark.parametrize("pooling", ["mean", "max", "last"])
def test_pooling_of_the_params_reads_the_title_s_tokens_only(tmp_path, pooling):
    encoder = load_text_encoder(saved(tmp_path, "bert"), pooling, 20)
    encoder.model.eval()
    inputs = encoder.prepare(TITLES)
    states, lengths = encoder.states(inputs), encoder.lengths(inputs)
    assert len(set(lengths.tolist())) > 1
    for row, vector in enumerate(encoder.pool(states, inputs)):
        own = states[row, : lengths[row]]
        expected = {"mean": own.mean(dim=0), "max": own.max(dim=0).values, "last": own[-1]}[pooling]
        torch.testing.assert_close(vector, expected)


def test_clip_and_siglip_give_the_vectors_of_their_own_text_features(tmp_path):
    for kind, length in (("clip", None), ("siglip", 20)):
        encoder = load_text_encoder(saved(tmp_path / kind, kind), "auto", 20)
        vectors = encode(encoder, TITLES)
        tokens = encoder.tokenizer(
            TITLES, padding="max_length" if length else True, max_length=length, return_tensors="pt", truncation=True
        )
        mask = {} if length else {"attention_mask": tokens["attention_mask"]}
        with torch.no_grad():
            own = encoder.model.get_text_features(input_ids=tokens["input_ids"], **mask).pooler_output
        torch.testing.assert_close(vectors, own)


def sentence_transformer(folder, pooling, *modules):
    """The folder of a BERT with modules.json as sentence-transformers writes it. modules: dense, normalize."""
    saved(folder, "bert")
    names = ["Transformer", "Pooling", *modules]
    paths = ["", *(f"{number}_{name}" for number, name in enumerate(names[1:], 1))]
    (folder / "modules.json").write_text(json.dumps([
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{name}"}
        for n, (name, path) in enumerate(zip(names, paths, strict=True))
    ]))  # fmt: skip
    for name, path in zip(names[1:], paths[1:], strict=True):
        (folder / path).mkdir()
        if name == "Pooling":
            (folder / path / "config.json").write_text(json.dumps(pooling))
        if name == "Dense":
            activation = "torch.nn.modules.activation.Tanh"
            sizes = {"in_features": 16, "out_features": 8, "bias": True, "activation_function": activation}
            (folder / path / "config.json").write_text(json.dumps(sizes))
            save_file(
                {"linear.weight": torch.randn(8, 16), "linear.bias": torch.randn(8)},
                folder / path / "model.safetensors",
            )
    return str(folder)


def modes(name):
    """The Pooling module's config as older releases write it."""
    return {f"pooling_mode_{mode}": mode == name for mode in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")}


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        (modes("cls_token"), "cls"),
        (modes("mean_tokens"), "mean"),
        (modes("max_tokens"), "max"),
        (modes("lasttoken"), "last"),
        ({"pooling_mode": "lasttoken"}, "last"),
    ],
)
def test_a_folder_of_sentence_transformers_says_how_to_pool(tmp_path, config, pooling, capsys):
    encoder = load_text_encoder(sentence_transformer(tmp_path, config, "Normalize"), "auto", 20)
    assert encoder.pooling == pooling
    assert f"vectors by {pooling}, Normalize (modules.json)" in capsys.readouterr().out
    plain = load_text_encoder(str(tmp_path), pooling, 20)
    torch.testing.assert_close(encode(encoder, TITLES), F.normalize(encode(plain, TITLES), dim=1))


def test_dense_and_normalize_are_computed_trained_and_saved(tmp_path):
    encoder = load_text_encoder(
        sentence_transformer(tmp_path / "st", modes("mean_tokens"), "Dense", "Normalize"), "auto", 20
    )
    vectors = encode(encoder, TITLES)
    assert vectors.shape == (4, 8)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    part = Tuned(encoder, encoder.prepare(TITLES), "last_block", fresh=False)
    part.cache_trunk(2)
    part(torch.arange(1, 5))[:, 0].sum().backward()
    weight = encoder.head[0].linear.weight
    assert weight.grad.abs().sum() > 0
    with torch.no_grad():
        weight.add_(weight.grad)
    encoder.save(tmp_path / "saved")
    again = load_text_encoder(str(tmp_path / "saved"), "auto", 20)
    torch.testing.assert_close(encode(again, TITLES), encode(encoder, TITLES))
    assert not torch.allclose(encode(again, TITLES), vectors)


def test_modules_that_are_not_implemented_are_refused_and_pooling_of_the_params_goes_without(tmp_path):
    folder = sentence_transformer(tmp_path, modes("mean_tokens"), "WeightedLayerPooling")
    with pytest.raises(InputError, match=r"has a module WeightedLayerPooling, which is unknown: set encoders.pooling"):
        load_text_encoder(folder, "auto", 20)
    assert load_text_encoder(folder, "mean", 20).pooling == "mean"


@pytest.mark.parametrize("name", ["1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"])
def test_a_module_without_its_file_is_refused_by_name(tmp_path, name):
    folder = sentence_transformer(tmp_path, modes("mean_tokens"), "Dense")
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{tmp_path} has no {name}, which its modules.json names: copy the whole"):
        load_text_encoder(folder, "auto", 20)


def test_two_poolings_at_once_are_refused(tmp_path):
    folder = sentence_transformer(
        tmp_path, modes("mean_tokens") | modes("x") | {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    )
    with pytest.raises(InputError, match=r"pools by cls\+mean, which is not implemented: set encoders.pooling"):
        load_text_encoder(folder, "auto", 20)


def test_cls_of_a_decoder_only_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="first token, which sees no other in a gpt2 model: set encoders.pooling=last"):
        load_text_encoder(saved(tmp_path, "gpt2"), "cls", 20)


def test_a_tokenizer_without_a_padding_token_pads_with_its_last_token(tmp_path):
    tokenizer = tiny_text_encoder(TITLES, "cls", 20).tokenizer
    MODELS["gpt2"][0]().save_pretrained(tmp_path)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, unk_token="[UNK]", eos_token="[SEP]"
    ).save_pretrained(tmp_path)
    encoder = load_text_encoder(str(tmp_path), "auto", 20)
    assert encoder.tokenizer.pad_token == "[SEP]"
    torch.testing.assert_close(encode(encoder, TITLES)[0], encode(encoder, TITLES[:1])[0], atol=1e-5, rtol=1e-4)


def test_max_tokens_over_the_model_s_positions_is_cut_and_said(tmp_path, capsys):
    config = RobertaConfig(**SMALL | {"vocab_size": VOCABULARY, "max_position_embeddings": 10}, pad_token_id=1)
    saved(tmp_path, "roberta")
    RobertaModel(config).save_pretrained(tmp_path)
    encoder = load_text_encoder(str(tmp_path), "auto", 64)
    assert encoder.max_tokens == 8  # RoBERTa's positions begin at padding_idx + 1
    assert "titles are cut to 8 tokens, it has no more positions (max_tokens=64)" in capsys.readouterr().out
    assert encode(encoder, ["cake " * 40]).shape == (1, 16)


def test_a_model_without_a_limit_of_positions_reads_max_tokens(tmp_path):
    saved(tmp_path, "bert")
    config = XLNetConfig(vocab_size=VOCABULARY, d_model=16, n_layer=2, n_head=2, d_inner=16)
    XLNetModel(config).save_pretrained(tmp_path)
    assert load_text_encoder(str(tmp_path), "mean", 20).max_tokens == 20  # its max_position_embeddings is -1


@pytest.mark.parametrize("kind", ["roberta", "bert", "t5", "qwen3", "gpt2"])
def test_a_folder_without_a_tokenizer_is_refused(tmp_path, kind):
    MODELS[kind][0]().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="has no tokenizer|cannot be loaded") as caught:
        load_text_encoder(str(tmp_path), "auto", 20)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("model_type", "nonesuch"), ("hidden_size", "16")])
def test_a_config_with_a_wrong_value_is_one_line(tmp_path, key, value):
    saved(tmp_path, "bert")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(InputError, match=f"cannot be loaded .*({key}|{value})") as caught:
        load_text_encoder(str(tmp_path), "auto", 20)
    assert "\n" not in str(caught.value)


def test_a_model_of_images_is_refused(tmp_path):
    ViTModel(ViTConfig(**IMAGE_SIDE)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="text_encoder="):
        load_text_encoder(str(tmp_path), "auto", 20)


def test_weights_of_another_model_are_refused(tmp_path):
    saved(tmp_path, "bert")
    save_file({"layer.weight": torch.ones(2)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="its weights lack .* tensors of the model"):
        load_text_encoder(str(tmp_path), "auto", 20)


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pointer_of_git_lfs_instead_of_weights_is_to_be_replaced(tmp_path, name):
    saved(tmp_path, "bert")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_bytes(LFS_POINTER)
    with pytest.raises(InputError, match="a file of its weights is damaged .* get it again") as caught:
        load_text_encoder(str(tmp_path), "auto", 20)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["vit", "whisper"])
def test_a_model_that_reads_no_text_is_refused_also_with_a_tokenizer(tmp_path, kind):
    saved(tmp_path, "bert")
    OTHERS[kind]().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="reads (pixel_values|input_features), not text"):
        load_text_encoder(str(tmp_path), "auto", 20)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path):
    saved(tmp_path, "bert")
    BertModel(BertConfig(**SMALL | {"vocab_size": 10})).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="they belong to two models"):
        load_text_encoder(str(tmp_path), "auto", 20).prepare(TITLES)
