"""The text encoder: a transformers encoder by name or folder, or a small BERT from scratch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5EncoderModel,
)
from transformers.models.bert.modeling_bert import BertLayer
from transformers.models.roberta.modeling_roberta import RobertaLayer

from stages.encoders.content_encoder import Catalogue, Inputs, ItemInputs
from stages.errors import InputError
from stages.files import user_path
from stages.params import EncodersParams


@dataclass
class TextEncoder:
    """A transformers model with its tokenizer, and how a title becomes one vector."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    pooling: str  # cls or mean
    max_tokens: int
    head: nn.Module = field(default_factory=nn.Identity)

    def read(self, catalogue: Catalogue) -> ItemInputs:
        """Tokens of all titles; an empty title is encoded like any other."""
        titles = catalogue.items[catalogue.title].to_list()
        usable = torch.ones(len(titles), dtype=torch.bool)
        return ItemInputs(self.prepare(titles), usable, {"empty_titles": titles.count("")})

    def prepare(self, titles: list[str]) -> Inputs:
        """Token ids and attention mask, right-padded to the longest title: each (titles, tokens)."""
        encoded = self.tokenizer(
            titles, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt", padding_side="right"
        )
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}

    def lengths(self, inputs: Inputs) -> Int[Tensor, " n"]:
        """Number of tokens of each title."""
        return inputs["attention_mask"].sum(dim=1)

    def trimmed(self, inputs: Inputs) -> Inputs:
        """The inputs without the columns that are padding in every row."""
        longest = int(self.lengths(inputs).max())
        return {name: tensor[:, :longest] for name, tensor in inputs.items()}

    def states(self, inputs: Inputs) -> Float[Tensor, "n tokens D"]:
        """Last hidden states."""
        return self.model(**inputs).last_hidden_state

    def pool(self, states: Float[Tensor, "n tokens D"], inputs: Inputs) -> Float[Tensor, "n D"]:
        """The state of the first token, or the mean over the title's tokens."""
        if self.pooling == "cls":
            return states[:, 0]
        mask = inputs["attention_mask"][:, :, None].to(states.dtype)
        return (states * mask).sum(dim=1) / mask.sum(dim=1)

    def run_last_block(self, block: nn.Module, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """The last layer's output for its arguments; of the first token only if pooling reads no other."""
        if self.pooling == "cls" and isinstance(block, BertLayer | RobertaLayer):
            return first_token(block, args[0], kwargs["attention_mask"] if "attention_mask" in kwargs else args[1])
        return block(*args, **kwargs)

    def save(self, folder: Path) -> None:
        """Write model and tokenizer in Hugging Face's layout."""
        assert isinstance(self.model, PreTrainedModel)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def first_token(
    layer: BertLayer | RobertaLayer,
    states: Float[Tensor, "n tokens D"],
    mask: Shaped[Tensor, "n 1 queries tokens"] | None,
) -> Float[Tensor, "n 1 D"]:
    """The layer's output for the first token, at about a fifth of the whole layer's cost.

    mask: added to the attention scores if float, True where attention is allowed if bool.
    """
    attention, first = layer.attention.self, states[:, :1]
    query, key, value = (
        part(x).unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)  # (n, heads, tokens, D / heads)
        for part, x in ((attention.query, first), (attention.key, states), (attention.value, states))
    )
    rate = attention.dropout.p if layer.training else 0.0
    mixed = F.scaled_dot_product_attention(query, key, value, None if mask is None else mask[:, :, :1], rate)
    attended = layer.attention.output(mixed.transpose(1, 2).flatten(2), first)
    return layer.output(layer.intermediate(attended), attended)


def tiny_text_encoder(titles: list[str], pooling: str, max_tokens: int) -> TextEncoder:
    """A two-layer BERT with a vocabulary made from the titles; weights from torch's current seed.

    The vocabulary is byte-pair encoding because the trainer of WordPiece numbers its tokens differently in each run.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.BpeTrainer(vocab_size=4000, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(titles, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=_with_cls_and_sep(tokenizer), unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=128, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=256, max_position_embeddings=max_tokens,
    )  # fmt: skip
    return TextEncoder(BertModel(config), wrapped, pooling, max_tokens)


def _with_cls_and_sep(tokenizer: Tokenizer) -> Tokenizer:
    ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return tokenizer


def load_text_encoder(name: str, pooling: str, max_tokens: int) -> TextEncoder:
    """A transformers encoder by hub name or folder; of T5 the encoder without its decoder (Sentence-T5).

    Raises InputError when it cannot be loaded.
    """
    place = str(user_path(name)) if user_path(name).is_dir() else name
    try:
        config = AutoConfig.from_pretrained(place)
        kind = T5EncoderModel if config.model_type == "t5" else AutoModel
        # eager attention gets a mask of the same shape in every batch; the cached trunk joins them
        model = kind.from_pretrained(place, attn_implementation="eager")
        tokenizer = AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"text_encoder={name} cannot be loaded ({reason}): give a transformers name or a folder with config, "
            "weights and tokenizer"
        ) from error
    limit = min(max_tokens, getattr(config, "max_position_embeddings", None) or max_tokens)
    return TextEncoder(model, tokenizer, pooling, limit)


def tiny(catalogue: Catalogue, settings: EncodersParams) -> TextEncoder:
    """`text_encoder=tiny`."""
    return tiny_text_encoder(catalogue.items[catalogue.title].to_list(), settings.pooling, settings.max_tokens)


def load(name: str, settings: EncodersParams) -> TextEncoder:
    """Any other `text_encoder`."""
    return load_text_encoder(name, settings.pooling, settings.max_tokens)
