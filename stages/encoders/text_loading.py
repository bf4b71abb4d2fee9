"""Loads a text encoder that transformers or sentence-transformers saved, and decides how its vectors are pooled."""

import inspect
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from stages.encoders.loading import NOT_LOADED, cannot_be_loaded, refuse_missing_weights
from stages.encoders.sentence_transformers import SentenceModules, read_sentence_modules
from stages.encoders.text import TextEncoder
from stages.errors import InputError
from stages.files import is_main_process, user_path
from stages.params import EncodersParams

MEND = "give a transformers name or a folder with config, weights and tokenizer"


def load_text_encoder(name: str, pooling: str, max_tokens: int) -> TextEncoder:
    """A transformers encoder by hub name or folder, computed in float32 whatever its weights are stored in.

    pooling: auto, or one of those of `TextEncoder`; auto is what the folder says (sentence-transformers), else by the
    kind of model, see `_pooling_of`. Raises InputError when it cannot be loaded or has no tokenizer.
    """
    place = str(user_path(name)) if user_path(name).is_dir() else name
    try:
        modules = read_sentence_modules(place) if pooling == "auto" else None
        transformer = f"{place}/{modules.transformer}" if modules and modules.transformer else place
        config = AutoConfig.from_pretrained(transformer)
        # eager attention gets a mask of the same shape in every batch; the cached trunk joins them
        model, info = _kind(config).from_pretrained(
            transformer, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(transformer)
    except NOT_LOADED as error:
        raise cannot_be_loaded(f"text_encoder={name}", error, MEND) from error
    if "input_ids" not in inspect.signature(model.forward).parameters:
        raise InputError(f"text_encoder={name} reads {model.main_input_name}, not text: {MEND}")
    refuse_missing_weights(f"text_encoder={name}", info["missing_keys"], MEND)
    _complete_tokenizer(name, transformer, tokenizer)
    chosen, why = (pooling, "encoders.pooling") if modules is None else (modules.pooling, "modules.json")
    if chosen == "auto":
        chosen, why = _pooling_of(model), f"as {config.model_type} models do"
    if chosen == "cls" and _is_causal(config):
        raise InputError(
            f"text_encoder={name}: pooling=cls reads the first token, which sees no other in a {config.model_type} "
            "model: set encoders.pooling=last"
        )
    if _is_causal(config):
        model.config.use_cache = False
    limit = _tokens(model, tokenizer, max_tokens)
    _say(name, chosen, why, modules, limit, max_tokens)
    head: nn.Module = nn.Identity() if modules is None else modules.head
    return TextEncoder(model, tokenizer, chosen, limit, head, from_sentence_transformers=modules is not None)


def _kind(config: PreTrainedConfig) -> Any:
    """AutoModel, or for T5 and its like the class that is their encoder alone."""
    encoder: Any = MODEL_FOR_TEXT_ENCODING_MAPPING.get(type(config), None)
    return encoder if encoder is not None and encoder.__name__.endswith("EncoderModel") else AutoModel


def _is_causal(config: PreTrainedConfig) -> bool:
    """Whether a token sees only those before it (decoder-only models)."""
    causal = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None) is not None
    return causal and MODEL_FOR_MASKED_LM_MAPPING.get(type(config), None) is None and not config.is_encoder_decoder


def _pooling_of(model: PreTrainedModel) -> str:
    """By the kind of model: own vector (CLIP, SigLIP), last token (decoder-only), mean (T5, BART), else cls (BERT)."""
    config = model.config
    if hasattr(model, "get_text_features") or config.model_type.endswith("_text_model"):
        return "own"
    if _is_causal(config):
        return "last"
    return "mean" if config.is_encoder_decoder or type(model).__name__.endswith("EncoderModel") else "cls"


def _complete_tokenizer(name: str, place: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that transformers makes up without a vocabulary; give one without padding a padding token."""
    files = set(type(tokenizer).vocab_files_names.values())
    if files and not any(cached_file(place, file, _raise_exceptions_for_missing_entries=False) for file in files):
        raise InputError(
            f"text_encoder={name} has no tokenizer (none of {', '.join(sorted(files))}): copy the files of the model "
            "that it was trained from"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise InputError(
            f"text_encoder={name}: its tokenizer has no padding token: set pad_token in its tokenizer_config.json"
        )


def _tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> int:
    """The most tokens a title may have: `max_tokens`, or as many positions as the model has."""
    config = model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or max_tokens
    positions = positions if positions > 0 else max_tokens  # XLNet's -1: no limit
    for module_name, module in model.named_modules():
        shifted = isinstance(module, nn.Embedding) and module.padding_idx is not None
        if shifted and module_name.endswith("position_embeddings"):  # RoBERTa numbers positions from padding_idx + 1
            positions = min(positions, module.num_embeddings - module.padding_idx - 1)
    return min(max_tokens, positions, tokenizer.model_max_length)


def _say(name: str, pooling: str, why: str, modules: SentenceModules | None, limit: int, max_tokens: int) -> None:
    if not is_main_process():
        return
    then = "".join(f", {type(module).__name__}" for module in modules.head) if modules else ""
    print(f"text_encoder={name}: vectors by {pooling}{then} ({why})")
    if limit < max_tokens:
        print(
            f"text_encoder={name}: titles are cut to {limit} tokens, it has no more positions (max_tokens={max_tokens})"
        )


def load(name: str, settings: EncodersParams) -> TextEncoder:
    """Any `text_encoder` but tiny."""
    return load_text_encoder(name, settings.pooling, settings.max_tokens)
