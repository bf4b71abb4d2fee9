"""The text encoder: a transformers model with its tokenizer (see text_loading.py), or a small BERT from scratch."""

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
    BertConfig,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.bert.modeling_bert import BertLayer
from transformers.models.roberta.modeling_roberta import RobertaLayer

from stages.encoders.content_encoder import Catalogue, Inputs, ItemInputs
from stages.encoders.sentence_transformers import write_sentence_modules
from stages.errors import InputError
from stages.params import EncodersParams


@dataclass
class TextEncoder:
    """A transformers model with its tokenizer, and how a title becomes one vector."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    pooling: str  # cls, mean, max, last (token), or own: the vector that the model itself makes of a text
    max_tokens: int
    head: nn.Module = field(default_factory=nn.Identity)  # after pooling
    from_sentence_transformers: bool = False  # saved as one

    def read(self, catalogue: Catalogue) -> ItemInputs:
        """Tokens of all titles; an empty title is encoded like any other."""
        titles = catalogue.items[catalogue.title].to_list()
        usable = torch.ones(len(titles), dtype=torch.bool)
        return ItemInputs(self.prepare(titles), usable, {"empty_titles": titles.count("")})

    def prepare(self, titles: list[str]) -> Inputs:
        """Token ids and attention mask, right-padded to the longest title: each (titles, tokens).

        SigLIP is trained on texts of full length, and without a mask. Raises InputError when the tokenizer has more
        tokens than the model.
        """
        fixed = self._fixed_length()
        encoded = self.tokenizer(
            titles, padding="max_length" if fixed else True, truncation=True, max_length=self.max_tokens,
            return_tensors="pt", padding_side="right", return_attention_mask=True,
        )  # fmt: skip
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        mask[:, :1] = 1  # a title without any token is encoded as one of padding
        text_side = getattr(self.model, "text_model", self.model)
        table = text_side.get_input_embeddings() if isinstance(text_side, PreTrainedModel) else None
        if isinstance(table, nn.Embedding) and int(ids.max()) >= table.num_embeddings:
            raise InputError(
                f"text_encoder: the tokenizer has a token {int(ids.max())}, the model only {table.num_embeddings}: "
                "they belong to two models"
            )
        return {"input_ids": ids, "attention_mask": torch.ones_like(mask) if fixed else mask}

    def _fixed_length(self) -> bool:
        return str(getattr(self._config(), "model_type", "")).startswith("siglip")

    def _config(self) -> Any:
        return getattr(self.model, "config", None)

    def lengths(self, inputs: Inputs) -> Int[Tensor, " n"]:
        """Number of tokens of each title."""
        return inputs["attention_mask"].sum(dim=1)

    def trimmed(self, inputs: Inputs) -> Inputs:
        """The inputs without the columns that are padding in every row."""
        longest = int(self.lengths(inputs).max())
        return {name: tensor[:, :longest] for name, tensor in inputs.items()}

    def states(self, inputs: Inputs) -> Float[Tensor, "n ..."]:
        """Last hidden states (n, tokens, D); with pooling `own` the model's vectors (n, D)."""
        output = self._forward()(**inputs)
        return output.pooler_output if self.pooling == "own" else output.last_hidden_state

    def _forward(self) -> Any:
        """What is run of the model: of CLIP and the like the text side, of BART and the like the encoder."""
        model: Any = self.model
        if hasattr(model, "get_text_features"):
            return model.get_text_features
        return model.get_encoder() if getattr(self._config(), "is_encoder_decoder", False) else model

    def pool(self, states: Float[Tensor, "n ..."], inputs: Inputs) -> Float[Tensor, "n D"]:
        """One vector per title, and what sentence-transformers does after pooling."""
        return self.head(self._pooled(states, inputs["attention_mask"]))

    def _pooled(self, states: Float[Tensor, "n ..."], attention_mask: Int[Tensor, "n tokens"]) -> Float[Tensor, "n D"]:
        if self.pooling == "own":
            return states
        if self.pooling == "cls":
            return states[:, 0]
        if self.pooling == "last":
            return states[torch.arange(len(states), device=states.device), attention_mask.sum(dim=1) - 1]
        mask = attention_mask[:, :, None].to(states.dtype)
        if self.pooling == "max":
            return states.masked_fill(mask == 0, float("-inf")).amax(dim=1)
        return (states * mask).sum(dim=1) / mask.sum(dim=1)

    def run_last_block(self, block: nn.Module, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """The last layer's output for its arguments; of the first token only if pooling reads no other."""
        if self.pooling == "cls" and isinstance(block, BertLayer | RobertaLayer):
            return first_token(block, args[0], kwargs["attention_mask"] if "attention_mask" in kwargs else args[1])
        return block(*args, **kwargs)

    def save(self, folder: Path) -> None:
        """Write model and tokenizer in Hugging Face's layout; one of sentence-transformers in theirs."""
        assert isinstance(self.model, PreTrainedModel)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        if self.from_sentence_transformers:
            write_sentence_modules(folder, self.pooling, self.model.config.hidden_size, self.head)


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
    model = BertModel(config)
    with torch.no_grad():  # what all titles share would be most of a mean over tokens
        model.embeddings.token_type_embeddings.weight.zero_()
        model.embeddings.position_embeddings.weight.mul_(0.25)
    # saved with its pooling, which a plain BERT folder does not name
    return TextEncoder(
        model, wrapped, "mean" if pooling == "auto" else pooling, max_tokens, from_sentence_transformers=True
    )


def _with_cls_and_sep(tokenizer: Tokenizer) -> Tokenizer:
    ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return tokenizer


def tiny(catalogue: Catalogue, settings: EncodersParams) -> TextEncoder:
    """`text_encoder=tiny`."""
    return tiny_text_encoder(catalogue.items[catalogue.title].to_list(), settings.pooling, settings.max_tokens)
