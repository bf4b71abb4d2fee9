"""Registry of the paper's tables and figures: the rows of each, and the params of the experiments behind a row."""

from dataclasses import dataclass, field
from typing import Any

from stages.models.systems import SYSTEMS
from stages.provenance import REFIT

OURS = "sicsrec"


@dataclass(frozen=True)
class Row:
    """A row of a table. name: as in the paper; params: of its experiments; system: whose ranks are read from them.

    A string among the params is a pattern (`swin_*`); the order of a list is ignored. searched: its experiments also
    have the params that `stages.search` found best for the system on the dataset (see searched.py).
    """

    name: str
    params: dict[str, Any] = field(default_factory=dict)
    system: str = OURS
    searched: bool = False


@dataclass(frozen=True)
class Table:
    """reference: the row that all others are tested against, or fallback_reference where it has no runs."""

    title: str
    rows: tuple[Row, ...]
    reference: str
    metrics: tuple[str, ...] = ("ndcg@10",)
    fallback_reference: str = ""


def _ours(key: str, rows: dict[str, Any]) -> tuple[Row, ...]:
    return tuple(Row(name, {key: value}) for name, value in rows.items())


def _modalities() -> tuple[Row, ...]:
    rows = {name: (modalities, "own") for name, modalities in MODALITIES.items()} | CONTROLS
    return tuple(Row(name, {"modalities": m, "posttrain.content": content}) for name, (m, content) in rows.items())


def _encoders(*pairs: tuple[str, str]) -> tuple[Row, ...]:
    text = {"BERT": "*bert-base*", "RoBERTa": "*roberta*", "Sentence-T5": "*sentence-t5*"}
    image = {"Swin": "*swin_*", "ViT": "*vit_*", "ResNet50": "*resnet50*"}
    return tuple(Row(f"{t}&{i}", {"text_encoder": text[t], "image_encoder": image[i]}) for t, i in pairs)


ABLATIONS = {
    "without IMSE": ["imse"],
    "without CMSE": ["cmse"],
    "without MMSD": ["mmsd"],
    "without ConCL": ["concl"],
    "without LoRA": ["lora"],
    "without L2-norm": ["l2norm"],
    "SICSRec": [],
}
MODALITIES = {
    "SICSRec T": ["text"],
    "SICSRec V": ["image"],
    "SICSRec T+V": ["text", "image"],
    "SICSRec ID+T": ["id", "text"],
    "SICSRec ID+V": ["id", "image"],
    "SICSRec ID+T+V": ["id", "text", "image"],
}
CONTROLS = {  # the second step without content, and with vectors that say nothing of their items
    "SICSRec ID": (["id"], "own"),
    "SICSRec ID+T shuffled": (["id", "text"], "shuffled"),
    "SICSRec ID+T random": (["id", "text"], "random"),
    "SICSRec ID+T+V shuffled": (["id", "text", "image"], "shuffled"),
    "SICSRec ID+T+V random": (["id", "text", "image"], "random"),
}
OTHERS_BY_MODALITY = {
    "UniSRec T": "unisrec_t",
    "UniSRec ID+T": "unisrec_t_id",
    "MISSRec T": "missrec_t",
    "MISSRec V": "missrec_v",
    "MISSRec T+V": "missrec_tv",
    "MISSRec ID+T": "missrec_t_id",
    "MISSRec ID+V": "missrec_v_id",
    "MISSRec ID+T+V": "missrec_tv_id",
}
ONLY_IN_TABLE_8 = {"missrec_v", "missrec_tv", "missrec_v_id"}
STRATEGIES = {
    "fixed IDEnc": ["id_encoder"],
    "fixed IDEmb": ["id_embedding"],
    "fixed IDEmb&Enc": ["id_embedding", "id_encoder"],
    "fixed ConEnc": ["content_encoder"],
    "fixed ConEmb": ["content_embedding"],
    "fixed ConEmb&Enc": ["content_embedding", "content_encoder"],
    "end to end": [],
}
TASKS = {
    "SFT": ["t2t", "i2i", "t2i"],
    "without t2t": ["i2i", "t2i"],
    "without i2i": ["t2t", "t2i"],
    "without t2i": ["t2t", "i2i"],
    "without SFT": [],
}
FILTERED = {"monitor": "filtered.ndcg@10", "smoothing": 0}  # trained for the protocol that leaves viewed items out
WITH_CONTENT = {"content_weight": "auto"}
SASREC, SCORED_BY_CONTENT = "SASRec", "SICSRec, content_weight=auto"
JUDGES = {"Hunyuan": "*unyuan*", "Qwen": "qwen*", "DeepSeek": "deepseek*", "GLM": "glm4*", "lexical": "lexical"}

STRONGEST = {"UniSRec T+ID": "unisrec_t_id", "MISSRec T+ID": "missrec_t_id"}  # of the others, with titles alone
FUSED = {"SASRec": "sasrec"} | STRONGEST
THREE_WITH_CONTENT = "SICSRec + UniSRec T+ID + MISSRec T+ID"
FUSED_FILTERED = {
    "SICSRec + SASRec + ItemKNN": [OURS, "id_encoder", "itemknn"],  # all three are trained by a default run
    THREE_WITH_CONTENT: [OURS, "unisrec_t_id", "missrec_t_id"],
    "SICSRec + SASRec + UniSRec T+ID + MISSRec T+ID + ItemKNN + GRU4Rec": [
        OURS, "id_encoder", "unisrec_t_id", "missrec_t_id", "itemknn", "gru4rec",
    ],
}  # fmt: skip
DISTILLED_PREFIX = "SICSRec distilled from "
REFITTED = ", refit"  # ends the name of the row of a system that was trained once more
WITHOUT_CONTENT = "SICSRec ID + SASRec + GRU4Rec + ItemKNN"
SUM_WITHOUT_CONTENT = [OURS, "id_encoder", "gru4rec", "itemknn"]


def _sum_and_student(name: str, fuse: list[str], params: dict[str, Any]) -> tuple[Row, Row]:
    return (
        Row(name, params | {"fuse": fuse}, "fused"),
        Row(DISTILLED_PREFIX + name, params | {"fuse": fuse, "distill": 4}, "distilled"),
    )


def _with_refit(name: str, system: str, params: dict[str, Any]) -> tuple[Row, Row]:
    return Row(name, params, system), Row(f"{name}{REFITTED}", params, f"{system}{REFIT}")


def _controls() -> tuple[Row, ...]:
    with_titles, without = FILTERED | {"modalities": ["id", "text"]}, FILTERED | {"modalities": ["id"]}
    return (
        Row(SASREC, with_titles, "id_encoder"),
        Row("SICSRec ID", without),
        *_sum_and_student(WITHOUT_CONTENT, SUM_WITHOUT_CONTENT, without),
        Row("SICSRec ID+T, content_weight=auto", with_titles | WITH_CONTENT),
        *_sum_and_student(THREE_WITH_CONTENT, FUSED_FILTERED[THREE_WITH_CONTENT], with_titles | WITH_CONTENT),
    )


TABLES = {
    "table4": Table(
        "Table 4: every system",
        (Row(OURS), *(Row(name, {}, name) for name in SYSTEMS if name not in ONLY_IN_TABLE_8)),
        OURS,
        ("hit@5", "hit@10", "ndcg@5", "ndcg@10"),
    ),
    "table5": Table("Table 5: the judge", _ours("llm", JUDGES), "GLM", ("hit@10", "ndcg@10")),
    "table6": Table(
        "Table 6: text and image encoder",
        _encoders(
            ("BERT", "Swin"),
            ("RoBERTa", "ViT"),
            ("Sentence-T5", "ResNet50"),
            ("BERT", "ViT"),
            ("BERT", "ResNet50"),
            ("RoBERTa", "Swin"),
            ("Sentence-T5", "Swin"),
            ("RoBERTa", "ResNet50"),  # the paper does not report these two
            ("Sentence-T5", "ViT"),
        ),
        "BERT&Swin",
        ("hit@10", "ndcg@10"),
    ),
    "table7": Table("Table 7: ablations", _ours("without", ABLATIONS), "SICSRec"),
    "table8": Table(
        "Table 8: modalities",
        (*_modalities(), *(Row(name, {}, system) for name, system in OTHERS_BY_MODALITY.items())),
        "SICSRec ID+T+V",
        fallback_reference="SICSRec ID+T",
    ),
    "table9": Table("Table 9: training strategies", _ours("frozen", STRATEGIES), "fixed IDEnc"),
    "refit": Table(
        "Trained again on training and validation items, stopped by filtered.ndcg@10 (not in the paper)",
        (
            *_with_refit(SCORED_BY_CONTENT, OURS, FILTERED | WITH_CONTENT),
            *_with_refit(SASREC, "id_encoder", FILTERED | WITH_CONTENT),
            *(row for name, system in STRONGEST.items() for row in _with_refit(name, system, FILTERED)),
        ),
        SASREC + REFITTED,
        ("hit@10", "ndcg@10"),
    ),
    "filtered": Table(
        "Stopped by filtered.ndcg@10 (not in the paper)",
        (
            Row(SASREC, FILTERED, "id_encoder"),
            Row(SCORED_BY_CONTENT, FILTERED | WITH_CONTENT),
            Row("SASRec, smoothing=0.1", FILTERED | {"smoothing": 0.1}, "id_encoder"),
            Row(f"{SCORED_BY_CONTENT}, smoothing=0.1", FILTERED | WITH_CONTENT | {"smoothing": 0.1}),
            *(Row(name, FILTERED, name) for name in SYSTEMS if name not in ONLY_IN_TABLE_8 | {"sasrec"}),
            *(
                row
                for name, fuse in FUSED_FILTERED.items()
                for row in _sum_and_student(name, fuse, FILTERED | WITH_CONTENT)
            ),
        ),
        SASREC,
        ("hit@10", "ndcg@10"),
    ),
    "controls": Table(
        "Sums and students with and without content, stopped by filtered.ndcg@10 (not in the paper)",
        _controls(),
        DISTILLED_PREFIX + WITHOUT_CONTENT,
        ("hit@10", "ndcg@10"),
    ),
    "ablations_filtered": Table(
        "Ablations, stopped by filtered.ndcg@10, content_weight=auto (not in the paper)",
        tuple(Row(name, FILTERED | WITH_CONTENT | {"without": without}) for name, without in ABLATIONS.items()),
        "SICSRec",
    ),
    "fuse": Table(
        "Scores of two systems added (not in the paper)",
        (
            Row(OURS),
            *(Row(name, {}, system) for name, system in FUSED.items()),
            *(Row(f"SICSRec + {name}", {"fuse": [OURS, system]}, "fused") for name, system in FUSED.items()),
        ),
        OURS,
        ("hit@10", "ndcg@10"),
    ),
    "precision": Table(
        "Trained in bfloat16 (not in the paper)",
        tuple(
            Row(f"{name}{suffix}", {"precision": precision}, system)
            for name, system in (("SICSRec", OURS), (SASREC, "id_encoder"))
            for suffix, precision in (("", "auto"), (", bfloat16", "bfloat16"))
        ),
        "SICSRec",
        ("hit@10", "ndcg@10"),
    ),
    "fig2": Table("Fig. 2: fine-tuning tasks", _ours("sft.tasks", TASKS), "SFT"),
    "fig3_alpha": Table(
        "Fig. 3: weight α of the contrastive loss",
        _ours("alpha", {f"{tenths / 10}": tenths / 10 for tenths in range(1, 11)}),
        "0.2",
    ),
    "fig3_rank": Table("Fig. 3: rank r", _ours("rank", {str(rank): rank for rank in (4, 8, 12, 16)}), "4"),
}
TUNED = {  # not in TABLES: which experiments these need, the searches decide
    "tuned": Table(
        "Tuned on validation, stopped by filtered.ndcg@10 (not in the paper)",
        (
            Row(SASREC, FILTERED, "id_encoder", searched=True),
            Row(SCORED_BY_CONTENT, FILTERED | WITH_CONTENT, searched=True),
            *(Row(name, FILTERED, name, searched=True) for name in STRONGEST.values()),
        ),
        SASREC,
        ("hit@10", "ndcg@10"),
    ),
}
ALL_TABLES = TABLES | TUNED
