"""params.yaml as typed, checked, read-only values: every key is required, unknown keys are refused."""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages import allow_bfloat16
from stages.errors import InputError
from stages.models.systems import SYSTEMS

LARGEST_SEED = 2**32 - 1  # that numpy and scikit-learn take

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
Dropout = Annotated[Number, Field(ge=0, lt=1)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Count = Annotated[int, Field(ge=1, strict=True)]
Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]  # an empty YAML value is None
Moment = Annotated[str, BeforeValidator(lambda value: str(value).strip())]  # YAML reads numbers and dates
ColumnName = Annotated[str, BeforeValidator(lambda value: "" if value is None else str(value).strip())]


def _fraction_or_auto(value: object) -> object:
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1):
        raise ValueError("should be a number from 0 to 1, or auto")
    return value


def _all_or_count(value: object) -> object:
    if value != "all" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError("should be all, or a whole number from 1")
    return value


FractionOrAuto = Annotated[float | Literal["auto"], BeforeValidator(_fraction_or_auto)]
AllOrCount = Annotated[int | Literal["all"], BeforeValidator(_all_or_count)]

MODALITIES = ("id", "text", "image")
ABLATIONS = ("imse", "cmse", "mmsd", "concl", "lora", "l2norm")
OURS = ("sicsrec", "id_encoder")  # SICSRec and its first step alone: every run trains both
HEADS = {"missrec": 4, "llmesr": 2}  # that systems of Table 4 have whatever sequence.heads is, by module
FREEZABLE = ("id_embedding", "id_encoder", "content_embedding", "content_encoder")
METRICS = ("hit@5", "hit@10", "ndcg@5", "ndcg@10")  # of validation and of Table 4
FILTERED = "filtered."  # starts the name of a metric that is computed with viewed items filtered out
MONITORS = (*METRICS, *(FILTERED + name for name in METRICS))


class Section(BaseModel):
    """Some keys of params.yaml, which cannot be changed; ValidationError names unknown keys and wrong values."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DownloadParams(Section):
    sample_users: Count  # users of the built-in sample
    sample_items: Count
    sample_topics: Count
    sha256: Text  # expected SHA-256 of a downloaded archive; empty = not checked


class SplitParams(Section):
    strategy: Literal["leave_one_out", "time"]  # which interactions are held out
    valid_from: Moment  # of strategy time: a quantile of the interactions, a date or a timestamp
    test_from: Moment
    min_interactions: Annotated[int, Field(ge=3, strict=True)]  # users with fewer are dropped (leave-one-out needs 3)


class ColumnsParams(Section):
    """Names of columns in the files of `source` (numbers from 1 where there is no header); empty = told from names."""

    user: ColumnName
    item: ColumnName
    time: ColumnName
    title: ColumnName


class PairsParams(Section):
    history: Literal["train", "full"]  # which history the judge sees; `full` includes the test item, as published
    format: Literal["json", "text"]  # how a language model answers: by a JSON schema, or the paper's <target>-<similar>
    threshold: Fraction  # lexical judge: below this cosine the answer is "none"


class OllamaParams(Section):
    hosts: Annotated[tuple[str, ...], Field(min_length=1)]  # as OLLAMA_HOST takes them
    concurrency: Count  # prompts in flight on each host
    timeout: Positive  # seconds to wait for one answer
    num_ctx: Count  # tokens of prompt and answer at most
    keep_alive: str  # how long the server keeps the model in memory
    think: Literal["auto", "never", "always"]  # before answering; auto: only a model that gives no answer without
    max_invalid: Fraction  # the stage fails when more answers than this are invalid


class OpenAIParams(Section):
    base_url: Text  # up to and with /v1; empty = OPENAI_BASE_URL of the environment, or OpenAI's own
    concurrency: Count  # prompts in flight
    timeout: Positive  # seconds to wait for one answer
    num_ctx: Count  # tokens of prompt and answer at most
    max_invalid: Fraction  # the stage fails when more answers than this are invalid


class EncodersParams(Section):
    pooling: Literal["auto", "cls", "mean", "max", "last"]  # text vector, of which tokens; auto: as the encoder says
    image_feature: Literal["head", "pooled"]  # image vector: classifier output (paper), or the pooled features
    max_tokens: Count  # titles are cut here
    batch_size: Count  # items a forward pass when embedding
    workers: Annotated[int, Field(ge=0, strict=True)]  # processes that decode covers


class SftParams(Section):
    tasks: tuple[Literal["t2t", "i2i", "t2i"], ...]  # eq. 4's losses; [] skips tuning (Fig. 2)
    train: Literal["last_block", "all"]  # which part of a pretrained encoder is tuned; a tiny one trains wholly
    epochs: Count
    batch_size: Count  # pairs
    tau: Positive | None  # temperature of eqs. 2 and 3; None: that of the other equations
    learning_rate: Positive  # of pretrained weights
    new_learning_rate: Positive  # of what starts from seed: adapters, tiny encoders

    def temperature(self, tau: float) -> float:
        """The temperature of eqs. 2 and 3. tau: that of the other equations."""
        return tau if self.tau is None else self.tau


class SequenceParams(Section):
    """The sequence encoders' shape, the same in every step and system."""

    layers: Count
    heads: Count
    max_length: Count  # the latest items of a history that are read


class LossParams(Section):
    negatives: AllOrCount  # items that a batch's targets are scored against: all, or a sample of this size


class Schedule(Section):
    """How long and how fast a model is trained."""

    learning_rate: Positive
    batch_positions: Count  # target positions a batch: the paper's batch of instances
    epochs: Count  # at most
    patience: Count  # epochs without a better validation `monitor` before stopping


class PretrainParams(Schedule):
    dropout: Dropout


class PosttrainParams(Schedule):
    dropout: Dropout
    decoder_layers: Count
    item_dropout: Dropout  # on the item table inside the softmax
    content: Literal["own", "shuffled", "random"]  # which content vectors an item gets: controls of Table 8


class BaselineParams(Schedule):
    dropout: Dropout | None  # None: each system's own
    embeddings: Literal["tuned", "frozen"]  # what the content systems read: vectors after or before fine-tuning
    absent: Literal["error", "skip"]  # a listed system that reads a modality which `modalities` lacks


class EvaluateParams(Section):
    bootstrap: Annotated[int, Field(ge=100, strict=True)]  # resamples of intervals and of randomisation tests


class Params(Section):
    """All of params.yaml."""

    dataset: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]
    source: Text  # folder, archive or https URL of the dataset; empty = NineRec's official archive
    language: Literal["zh", "en"]
    modalities: Annotated[tuple[Literal[MODALITIES], ...], Field(min_length=1)]  # type: ignore[valid-type]
    llm: Annotated[str, Field(min_length=1)]  # the judge: `lexical`, a model of Ollama's, or openai:NAME
    text_encoder: Annotated[str, Field(min_length=1)]  # `tiny`, or a transformers name or folder
    image_encoder: Annotated[str, Field(min_length=1)]  # `tiny`, or a timm name or folder
    alpha: Fraction  # weight of the contrastive loss, eq. 19
    content_weight: FractionOrAuto  # of content vectors in the scores; auto: chosen on validation
    rank: Count  # LoRA rank, eq. 20
    tau: Positive  # temperature of eqs. 17 and 18, and of eqs. 2 and 3 unless `sft.tau` is set
    smoothing: Annotated[Number, Field(ge=0, lt=1)]  # share of a target's probability that goes to its nearest items
    lam: NotNegative  # weight of the regulariser, eq. 19
    dim: Count  # width of the sequence models
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED, strict=True)]
    without: tuple[Literal[ABLATIONS], ...]  # type: ignore[valid-type]  # Table 7
    frozen: tuple[Literal[FREEZABLE], ...]  # type: ignore[valid-type]  # Table 9
    baselines: tuple[Literal[tuple(SYSTEMS)], ...]  # type: ignore[valid-type]  # rows of Table 4 beside SICSRec
    all_systems: tuple[Literal[tuple(SYSTEMS)], ...]  # type: ignore[valid-type]  # for -S 'baselines=${all_systems}'
    refit: bool  # whether the chosen models are trained once more, on training and validation items
    fuse: tuple[Literal[(*OURS, *SYSTEMS)], ...]  # type: ignore[valid-type]  # whose scores are added; () = none
    distill: NotNegative  # weight of the fused scores in one more training of SICSRec; 0 = none
    launch: Annotated[str, Field(min_length=1)]  # the command that starts a training stage
    monitor: Literal[MONITORS]  # type: ignore[valid-type]  # validation metric that stops training, picks weights
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")]
    precision: Literal["auto", "float32", "bfloat16"]
    download: DownloadParams
    columns: ColumnsParams
    split: SplitParams
    pairs: PairsParams
    ollama: OllamaParams
    openai: OpenAIParams
    encoders: EncodersParams
    sft: SftParams
    sequence: SequenceParams
    loss: LossParams
    pretrain: PretrainParams
    posttrain: PosttrainParams
    baseline: BaselineParams
    evaluate: EvaluateParams

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "Params":
        if self.dim % self.sequence.heads:
            raise ValueError(f"dim={self.dim} is not a multiple of sequence.heads={self.sequence.heads}")
        return self

    @model_validator(mode="after")
    def _heads_of_other_systems_divide_the_width(self) -> "Params":
        for name in self.baselines:
            if self.dim % (heads := HEADS.get(SYSTEMS[name].module, 1)):
                raise ValueError(f"dim={self.dim} is not a multiple of the {heads} attention heads of {name}")
        return self

    @model_validator(mode="after")
    def _controls_hide_what_items_are(self) -> "Params":
        if self.smoothing and self.posttrain.content != "own":
            raise ValueError(
                f"posttrain.content={self.posttrain.content} is a control without the items' content, which smoothing="
                f"{self.smoothing:g} reads: set one of them off"
            )
        return self

    @model_validator(mode="after")
    def _lists_name_each_once(self) -> "Params":
        for key in ("modalities", "without", "frozen", "baselines"):
            names = getattr(self, key)
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"{key}={list(names)} names {twice[0]} twice")
        return self

    @model_validator(mode="after")
    def _there_is_content_for_what_reads_it(self) -> "Params":
        reads = {
            "content_weight": (self.content_weight, 0),
            "smoothing": (self.smoothing, 0),
            "posttrain.content": (self.posttrain.content, "own"),
        }
        for key, (value, off) in reads.items():
            if value != off and not {"text", "image"} & set(self.modalities):
                raise ValueError(f"{key}={value} needs content: add text or image to modalities, or set {key}={off}")
        return self

    @model_validator(mode="after")
    def _baselines_find_their_modalities(self) -> "Params":
        """Refuse a listed system that lacks a modality here, before anything is trained.

        Where every system is listed, `stages.baseline` skips those that lack one.
        """
        if self.baseline.absent == "error" and not set(self.baselines) >= set(self.all_systems):
            for name in self.baselines:
                if why := lacks_modality(name, self.modalities):
                    raise ValueError(f"baselines: {why}: remove it, or set baseline.absent=skip")
        return self

    @model_validator(mode="after")
    def _fused_systems_are_trained(self) -> "Params":
        if len(self.fuse) == 1 or len(set(self.fuse)) < len(self.fuse):
            raise ValueError(f"fuse={list(self.fuse)} should name two different systems or more")
        for name in self.fuse:
            if name in OURS:
                continue
            if name not in self.baselines:
                raise ValueError(f"fuse: {name} is not trained by this run: add it to baselines")
            if why := lacks_modality(name, self.modalities):
                raise ValueError(f"fuse: {why}: remove it")
        return self

    @model_validator(mode="after")
    def _a_distilled_model_has_teachers(self) -> "Params":
        if self.distill and not self.fuse:
            raise ValueError(f"distill={self.distill:g}: set fuse to the systems whose scores are taught")
        if self.distill and self.loss.negatives != "all":
            raise ValueError(f"distill={self.distill:g} scores all items: set loss.negatives=all")
        return self


def lacks_modality(system: str, modalities: Sequence[str]) -> str | None:
    """Why this system of Table 4 cannot be trained with these modalities, or None."""
    absent = [modality for modality in SYSTEMS[system].content if modality not in modalities]
    return f"{system} reads {absent[0]}, which modalities={list(modalities)} lacks" if absent else None


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml; with precision=bfloat16 also prepare the process for it.

    Raises InputError with the file, the key and what is wrong with its value. ruamel.yaml reads YAML 1.2, where
    `1e-05` (which `dvc exp run -S` writes) is a number.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: run from the project's root")
    try:
        content: Any = YAML(typ="safe").load(path)
    except YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} has no keys: `git checkout {path}` brings back the one of this version")
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {_explained(error.errors()[0])}") from error
    if params.precision == "bfloat16":
        allow_bfloat16()
    return params


def _explained(fault: ErrorDetails) -> str:
    """The key, what is wrong with it, and the nearest right name where a name is wrong."""
    key = ".".join(str(part) for part in fault["loc"])
    if not key:  # a fault between keys, whose message names them
        return fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return f"{key}: there is no such key{_nearest(key, list(_keys(Params)))}"
    if fault["type"] == "missing":
        return f"the key {key} is missing: add it as in the params.yaml of this version (`git diff params.yaml`)"
    if fault["type"] == "tuple_type":
        return f"{key}: this is a list: write -S '{key}=[{fault['input']}]'"
    if key.startswith("baselines.") and fault["input"] == "all":
        return "baselines: for every system write -S 'baselines=${all_systems}'"
    if fault["type"] == "literal_error":
        allowed = re.findall(r"'([^']+)'", fault["ctx"]["expected"])
        return f"{key}: {fault['msg']} (got {fault['input']!r:.80}){_nearest(str(fault['input']), allowed)}"
    return f"{key}: {fault['msg'].removeprefix('Value error, ')} (got {fault['input']!r:.80})"


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of params.yaml, those of a section as `section.key`."""
    for name, field in section.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _keys(field.annotation, f"{prefix}{name}.")


def _nearest(name: str, known: list[str]) -> str:
    by_last_part = {key.rsplit(".", 1)[-1]: key for key in known}
    close = get_close_matches(name, known, 1) or [
        by_last_part[last] for last in get_close_matches(name.rsplit(".", 1)[-1], by_last_part, 1)
    ]
    return f": did you mean {close[0]}?" if close else ""
