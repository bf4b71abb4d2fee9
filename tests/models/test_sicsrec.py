from dataclasses import replace
from itertools import chain, combinations

import pytest
import torch
import torch.nn.functional as F

from stages.models.content import fuse_modalities
from stages.models.layers import Attention, FeedForward, NormDropout
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.models.softmax import Sampler, next_item_loss
from stages.parallel import distributed
from stages.parallel.distributed import Shard

ITEMS, DIM = 20, 8
CONFIG = SicsrecConfig(
    items=ITEMS, dim=DIM, layers=2, decoder_layers=1, heads=4, dropout=0.25, item_dropout=0.5, max_length=6,
    tau=0.05, alpha=0.3, lam=0.01, rank=2, widths={"text": 6, "image": 10}, use_id=True, frozen=("id_encoder",),
)  # fmt: skip
HISTORIES = torch.tensor([[3, 1, 7, 2], [5, 6, 0, 0]])
TARGETS = torch.tensor([[1, 7, 2, 9], [6, 1, 0, 0]])


def subsets(names):
    return chain.from_iterable(combinations(names, n) for n in range(len(names) + 1))


def build(config: SicsrecConfig = CONFIG, pretrained: Sasrec | None = None) -> Sicsrec:
    torch.manual_seed(0)
    model = Sicsrec(config, pretrained)
    if config.widths:
        model.load_content_vectors({name: torch.randn(config.items, width) for name, width in config.widths.items()})
    return model


def pretrained() -> Sasrec:
    """An encoder that has moved from its initial weights, those of LayerNorm included."""
    torch.manual_seed(1)
    c = CONFIG
    sizes = {"items": c.items, "dim": c.dim, "layers": c.layers, "heads": c.heads, "max_length": c.max_length}
    encoder = Sasrec(SasrecConfig(**sizes, dropout=0.5)).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    return encoder


def test_every_ablation_of_the_paper_is_allowed():
    for name in ("imse", "cmse", "mmsd", "concl", "lora", "l2norm"):
        assert replace(CONFIG, without=(name,)).refusal() is None


PART_WITHOUT_ID = "takes the ID stream's part away, but modalities has no id"
PART_WITHOUT_CONTENT = "takes a content part away, but modalities has neither text nor image"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        *(({"without": (n,), "use_id": False}, f"without={n} {PART_WITHOUT_ID}") for n in ("imse", "mmsd", "lora")),
        *(
            ({"without": (n,), "widths": {}}, f"without={n} {PART_WITHOUT_CONTENT}")
            for n in ("cmse", "mmsd", "concl", "l2norm")
        ),
        (
            {"without": ("imse", "lora")},
            "without=lora has no meaning beside without=imse: there is no ID encoder left to adapt",
        ),
        (
            {"without": ("imse", "mmsd")},
            "without=mmsd has no meaning beside without=imse: the decoder reads the ID stream and went with it",
        ),
        (
            {"without": ("cmse", "l2norm")},
            "without=l2norm has no meaning beside without=cmse: it gives each modality an encoder of its own",
        ),
        ({"without": ("imse", "cmse")}, "without=['imse', 'cmse'] leaves neither an ID stream nor a content stream"),
        ({"without": ("cmse",), "use_id": False}, "without=['cmse'] leaves neither an ID stream nor a content stream"),
        (
            {"without": ("cmse", "mmsd")},
            "without=['cmse', 'mmsd'] leaves nothing that reads content: use modalities=[id] for that",
        ),
        (
            {"without": ("cmse",), "frozen": ("content_encoder",)},
            "frozen=content_encoder has no meaning beside without=cmse: there is no content encoder",
        ),
    ],
)
def test_a_combination_without_meaning_is_refused_with_the_reason(changes, reason):
    assert replace(CONFIG, **changes).refusal() == reason


def test_content_is_put_into_the_order_of_the_params():
    config = replace(CONFIG, widths={"image": 4, "text": 6})
    assert list(config.with_order(("id", "text", "image")).widths.items()) == [("text", 6), ("image", 4)]
    assert config.with_order(("id", "text", "image")) == config


ID, CONTENT, DECODER = "id_encoder", "content_encoder", "decoder"


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, {ID, CONTENT, DECODER}),
        ({"without": ("imse",)}, {CONTENT}),
        ({"without": ("cmse",)}, {ID, DECODER}),
        ({"without": ("mmsd",)}, {ID, CONTENT}),
        ({"without": ("concl", "l2norm", "lora")}, {ID, CONTENT, DECODER}),
        ({"use_id": False}, {CONTENT}),
        ({"widths": {}}, {ID}),
    ],
)
def test_exactly_the_parts_that_are_not_left_out_are_built_and_projected(changes, parts):
    model = Sicsrec(replace(CONFIG, **changes))
    assert {part for part in (ID, CONTENT, DECODER) if hasattr(model, part)} == parts
    assert model.projection.in_features == DIM * len(parts)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"frozen": ()}, False),
        ({"frozen": ("id_embedding",)}, False),
        ({"without": ("lora",)}, False),
        ({"without": ("concl",)}, True),
    ],
)
def test_a_frozen_id_encoder_has_low_rank_updates_unless_lora_is_left_out(changes, expected):
    model = Sicsrec(replace(CONFIG, **changes))
    updates = [parameter for name, parameter in model.id_encoder.named_parameters() if name.endswith("weight.0.a")]
    assert bool(updates) == expected
    assert all(update.shape == (CONFIG.rank, DIM) for update in updates)


def test_the_stacks_have_the_layers_rates_and_heads_of_the_configuration():
    model = Sicsrec(replace(CONFIG, layers=3, decoder_layers=2, without=("l2norm",)))
    assert len(model.id_encoder.blocks) == 3
    assert [len(encoder.blocks) for encoder in model.content_encoder.values()] == [3, 3]
    assert len(model.decoder) == 2
    for layer in model.modules():
        if isinstance(layer, Attention | FeedForward | NormDropout):
            assert layer.dropout == CONFIG.dropout
        if isinstance(layer, Attention):
            assert layer.heads == CONFIG.heads


def test_by_default_nothing_is_left_out_and_nothing_is_frozen():
    config = SicsrecConfig(**{name: value for name, value in vars(CONFIG).items() if name not in ("without", "frozen")})
    assert config.without == config.frozen == ()


def test_weights_start_from_a_normal_with_standard_deviation_002_and_biases_at_zero():
    model = Sicsrec(replace(CONFIG, items=2000, dim=64))
    assert abs(model.item_embedding.weight.std().item() - 0.02) < 1e-3
    assert abs(model.projection.weight.std().item() - 0.02) < 1e-3
    assert model.projection.bias.abs().max() == 0


def test_the_inner_width_of_an_adapter_is_half_of_its_input_width():
    adapter = Sicsrec(CONFIG).content.adapters["image"]
    vectors = torch.randn(3, 10)
    inner = (vectors @ adapter[0].weight.T + adapter[0].bias).clamp(min=0)
    assert inner.shape == (3, 5)
    torch.testing.assert_close(adapter(vectors), inner @ adapter[2].weight.T + adapter[2].bias)


def test_hidden_equals_the_equations_written_out():
    model = build().eval()
    items, positions = HISTORIES[:1], model.position_embedding.weight[:4]
    h_e = model.id_encoder(model.id_input(model.item_embedding(items) + positions))
    text = model.content.adapters["text"](model.content.tables["text"](items))
    image = model.content.adapters["image"](model.content.tables["image"](items))
    fused = (text + image) / (text + image).norm(dim=-1, keepdim=True)  # eq. 10
    h_c = model.content_encoder["content"](model.content_input["content"](fused + positions))
    h_m = model.decoder[0](model.decoder_query(h_e), model.decoder_memory(h_c))
    h_a = model.projection(torch.cat([h_e, h_c, h_m], dim=-1))  # eq. 15
    torch.testing.assert_close(model.hidden(items), h_a / h_a.norm(dim=-1, keepdim=True))


def test_without_l2norm_each_modality_has_an_encoder_and_their_states_are_added():
    model = build(replace(CONFIG, without=("l2norm",))).eval()
    items, positions = HISTORIES[:1], model.position_embedding.weight[:4]
    h_e = model.id_encoder(model.id_input(model.item_embedding(items) + positions))
    adapted = {name: model.content.adapters[name](model.content.tables[name](items)) for name in ("text", "image")}
    h_c = sum(model.content_encoder[n](model.content_input[n](vectors + positions)) for n, vectors in adapted.items())
    h_m = model.decoder[0](model.decoder_query(h_e), model.decoder_memory(h_c))
    h_a = model.projection(torch.cat([h_e, h_c, h_m], dim=-1))
    torch.testing.assert_close(model.hidden(items), F.normalize(h_a, dim=-1))


def test_without_cmse_the_decoder_reads_content_that_no_encoder_has_read():
    model = build(replace(CONFIG, without=("cmse",))).eval()
    items, positions = HISTORIES[:1], model.position_embedding.weight[:4]
    h_e = model.id_encoder(model.id_input(model.item_embedding(items) + positions))
    content = model.content_input["content"](fuse_modalities(model.content(items)) + positions)
    h_m = model.decoder[0](model.decoder_query(h_e), model.decoder_memory(content))
    h_a = model.projection(torch.cat([h_e, h_m], dim=-1))
    torch.testing.assert_close(model.hidden(items), F.normalize(h_a, dim=-1))


@pytest.mark.parametrize("without", [(), ("concl",)])
def test_the_loss_is_its_terms_weighted_as_in_equation_19(without):
    model = build(replace(CONFIG, without=without)).eval()
    terms = model.loss(HISTORIES, TARGETS)
    states, targets = model.hidden(HISTORIES)[TARGETS > 0], TARGETS[TARGETS > 0]
    concl = 0 if without else CONFIG.alpha * model.contrastive(states, targets)
    rows = torch.cat([HISTORIES.flatten(), targets]).unique()
    regulariser = model.regulariser(rows, torch.ones_like(rows, dtype=torch.bool))
    torch.testing.assert_close(terms["loss"], terms["ce"] + concl + CONFIG.lam * regulariser)
    assert set(terms) == {"loss", "ce", "regulariser"} | (set() if without else {"concl"})
    torch.testing.assert_close(terms["regulariser"], regulariser)
    if not without:
        torch.testing.assert_close(terms["concl"] * CONFIG.alpha, concl)


def test_id_alone_has_no_contrastive_term():
    assert set(build(replace(CONFIG, widths={})).loss(HISTORIES, TARGETS)) == {"loss", "ce", "regulariser"}


def test_with_a_sampler_the_cross_entropy_is_over_its_negatives():
    model = build(replace(CONFIG, item_dropout=0.0)).eval()
    assert model.sampler is None
    sampler = model.sampler = Sampler(torch.ones(ITEMS, dtype=torch.long), 8)
    torch.manual_seed(1)
    ce = model.loss(HISTORIES, TARGETS)["ce"]
    states, targets = model.hidden(HISTORIES)[TARGETS > 0] / CONFIG.tau, TARGETS[TARGETS > 0]
    torch.manual_seed(1)
    torch.testing.assert_close(ce, next_item_loss(states, targets, model.candidates, sampler))


def test_positions_without_a_target_count_for_nothing_in_the_contrastive_loss():
    model = build().eval()
    states = F.normalize(torch.randn(4, DIM), dim=-1)
    targets = torch.tensor([1, 0, 9, 0])
    some = targets > 0
    torch.testing.assert_close(model.contrastive(states, targets), model.contrastive(states[some], targets[some]))


def test_the_contrastive_loss_equals_a_loop_over_the_batch_s_target_items():
    model = build().eval()
    states = F.normalize(torch.randn(5, DIM), dim=-1)
    targets = torch.tensor([3, 8, 3, 1, 9])
    content = {
        int(t): F.normalize(
            sum(model.content.adapters[m](model.content.tables[m](t)) for m in ("text", "image")), dim=-1
        )
        for t in targets
    }
    losses = []
    for i, target in enumerate(targets.tolist()):
        scores = {other: (states[i] @ vector / CONFIG.tau) for other, vector in content.items()}
        losses.append(torch.logsumexp(torch.stack(list(scores.values())), 0) - scores[target])
    torch.testing.assert_close(model.contrastive(states, targets), torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)


def test_the_regulariser_sums_the_norms_of_the_batch_s_rows():
    model = build()
    rows = torch.tensor([2, 5])
    tables = [model.item_embedding.weight, model.content.tables["text"].weight, model.content.tables["image"].weight]
    expected = sum((table[rows] ** 2).sum().sqrt() for table in tables)
    torch.testing.assert_close(model.regulariser(rows, torch.tensor([True, True])), expected)
    padded = model.regulariser(torch.tensor([2, 5, 5]), torch.tensor([True, True, False]))
    torch.testing.assert_close(padded, expected)


@pytest.mark.parametrize(
    ("changes", "tables"),
    [
        ({"frozen": ("id_embedding",)}, ("text", "image")),
        ({"use_id": False}, ("text", "image")),
        ({"frozen": ("content_embedding",)}, ("id",)),
        ({"widths": {}}, ("id",)),
        ({"frozen": ("id_embedding", "content_embedding")}, ()),
    ],
)
def test_the_regulariser_is_of_the_tables_that_are_trained(changes, tables):
    model, rows = build(replace(CONFIG, **changes)), torch.tensor([2, 5])
    weights = {"id": model.item_embedding.weight} if model.config.use_id else {}
    weights |= {name: table.weight for name, table in model.content.tables.items()} if model.config.widths else {}
    expected = sum((weights[name][rows].norm() for name in tables), start=torch.zeros(()))
    torch.testing.assert_close(model.regulariser(rows, torch.tensor([True, True])), expected)


def test_an_item_outside_the_batch_gets_no_gradient_on_its_content_vector():
    model = build()
    model.loss(HISTORIES, TARGETS)["loss"].backward()
    gradient = model.content.tables["text"].weight.grad
    assert gradient[19].abs().max() == 0
    assert gradient[7].abs().max() > 0


def test_the_id_stream_starts_with_the_states_of_the_pretrained_encoder():
    encoder = pretrained()
    model = build(CONFIG, encoder).eval()
    positions = model.position_embedding.weight[:4]
    states = model.id_encoder(model.id_input(model.item_embedding(HISTORIES) + positions))
    torch.testing.assert_close(states, encoder.hidden(HISTORIES))


def test_without_an_id_encoder_the_pretrained_tables_are_loaded():
    encoder = pretrained()
    model = build(replace(CONFIG, without=("imse",), frozen=("id_embedding",)), encoder)
    assert torch.equal(model.item_embedding.weight, encoder.item_embedding.weight)
    assert torch.equal(model.position_embedding.weight, encoder.position_embedding.weight)


def test_exactly_what_is_frozen_gets_no_gradient():
    frozen = {
        "id_embedding": ["item_embedding."],
        "id_encoder": ["id_encoder."],
        "content_embedding": ["content."],
        "content_encoder": ["content_encoder."],
    }
    for name, prefixes in frozen.items():
        model = build(replace(CONFIG, frozen=(name,)))
        model.loss(HISTORIES, TARGETS)["loss"].backward()
        for key, parameter in model.named_parameters():
            low_rank = key.endswith((".a", ".b")) and "parametrizations" in key
            stays = key.startswith(tuple(prefixes)) and not low_rank
            assert parameter.requires_grad != stays, key
            assert (parameter.grad is None) == stays, key


def test_a_frozen_id_encoder_without_lora_has_no_trainable_parameter():
    model = build(replace(CONFIG, without=("lora",)))
    assert not any(parameter.requires_grad for parameter in model.id_encoder.parameters())


def test_a_later_item_does_not_change_earlier_outputs():
    for without in ((), ("l2norm",), ("cmse",), ("imse",)):
        model = build(replace(CONFIG, without=without)).eval()
        changed = HISTORIES.clone()
        changed[0, 3] = 15
        torch.testing.assert_close(model.hidden(HISTORIES)[0, :3], model.hidden(changed)[0, :3], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("without", [(), ("l2norm",), ("cmse",), ("imse",), ("mmsd",), ("cmse", "concl")])
def test_the_last_state_alone_is_the_last_of_all_states(without: tuple[str, ...]):
    model = build(replace(CONFIG, without=without, decoder_layers=2)).eval()
    every = model.hidden(HISTORIES)
    for row, length in enumerate((HISTORIES > 0).sum(dim=1)):
        torch.testing.assert_close(model.last_hidden(HISTORIES)[row], every[row, length - 1])


def test_padding_does_not_change_a_state():
    model = build().eval()
    torch.testing.assert_close(model.last_hidden(HISTORIES[1:]), model.last_hidden(HISTORIES[1:, :2]))


def test_items_are_ranked_by_the_unit_vectors_that_the_loss_uses():
    model = build(replace(CONFIG, item_dropout=0.0)).eval()
    wanted = TARGETS > 0
    scores = model.hidden(HISTORIES)[wanted] @ model.item_matrix().T / CONFIG.tau
    expected = F.cross_entropy(scores, TARGETS[wanted] - 1)
    torch.testing.assert_close(model.loss(HISTORIES, TARGETS)["ce"], expected)


def test_content_only_scores_against_the_unit_vectors_of_equation_10():
    model = build(replace(CONFIG, use_id=False)).eval()
    assert not hasattr(model, "item_embedding")
    content = model.content
    added = sum(content.adapters[name](content.tables[name].weight[1:]) for name in ("text", "image"))
    torch.testing.assert_close(model.item_matrix(), added / added.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize("use_id", [True, False])
def test_some_candidates_are_rows_of_the_item_matrix(use_id):
    model = build(replace(CONFIG, use_id=use_id)).eval()
    torch.testing.assert_close(model.candidates(torch.tensor([20, 1])), model.item_matrix()[[19, 0]])


@pytest.mark.parametrize("use_id", [True, False])
def test_candidates_have_item_dropout_in_training_alone(use_id):
    model = build(replace(CONFIG, use_id=use_id, items=2000, widths={} if use_id else {"text": 40}))
    assert (model.candidates(None) == 0).float().mean().item() == pytest.approx(CONFIG.item_dropout, abs=0.02)
    assert (model.eval().candidates(None) == 0).sum() == 0


def test_all_ranks_drop_the_same_elements_of_the_item_matrix(monkeypatch):
    model = build()
    torch.manual_seed(1)
    expected = model.candidates(None)
    monkeypatch.setattr(distributed, "_shard", Shard(first=ITEMS, own=ITEMS, total=2 * ITEMS))  # as many rows as items
    torch.manual_seed(1)
    assert torch.equal(model.candidates(None), expected)


@pytest.mark.parametrize("use_id", [True, False])
def test_content_starts_at_the_encoders_vectors_and_without_id_their_mean_is_subtracted(use_id):
    model = Sicsrec(replace(CONFIG, use_id=use_id))
    vectors = {name: torch.randn(ITEMS, width) + 5 for name, width in CONFIG.widths.items()}
    model.load_content_vectors(vectors)
    for name, table in model.content.tables.items():
        shared = 0 if use_id else vectors[name].mean(dim=0)
        torch.testing.assert_close(table.weight[1:], vectors[name] - shared)
        assert table.weight[0].abs().max() == 0


@pytest.mark.parametrize("without", [(), ("l2norm",)])
def test_a_loaded_content_side_computes_the_states_of_the_content_only_model(without):
    first = build(replace(CONFIG, use_id=False, frozen=(), without=without)).eval()
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(torch.randn_like(parameter))
    model = build(replace(CONFIG, frozen=("content_encoder",), without=without)).eval()
    model.load_content_side(first)
    states, expected = (m._content_states(HISTORIES, m.position_embedding.weight[:4], False) for m in (model, first))
    assert torch.equal(states, expected)


def test_without_a_content_encoder_content_and_positions_are_loaded():
    first = build(replace(CONFIG, use_id=False, frozen=()))
    with torch.no_grad():
        first.position_embedding.weight.add_(1)
    model = build(replace(CONFIG, frozen=("content_embedding",), without=("cmse",)))
    model.load_content_side(first)
    assert torch.equal(model.position_embedding.weight, first.position_embedding.weight)
    assert torch.equal(model.content.tables["text"].weight, first.content.tables["text"].weight)


@pytest.mark.parametrize("use_id", [True, False])
@pytest.mark.parametrize("content", [(), ("text",), ("text", "image")])
def test_every_combination_trains_or_is_refused_with_a_reason(use_id, content):
    if not use_id and not content:
        return  # params.yaml refuses an empty list of modalities
    widths = {name: CONFIG.widths[name] for name in content}
    trained = 0
    for without in subsets(("imse", "cmse", "mmsd", "concl", "lora", "l2norm")):
        for frozen in (("id_encoder",), ("id_embedding", "content_embedding", "content_encoder")):
            config = replace(CONFIG, layers=1, widths=widths, use_id=use_id, without=without, frozen=frozen)
            if (reason := config.refusal()) is not None:
                assert without and ("without=" in reason)
                continue
            model = build(config)
            assert model.hidden(HISTORIES).shape == (2, 4, DIM)
            assert model.item_matrix().shape == (ITEMS, DIM)
            terms = model.loss(HISTORIES, TARGETS)
            terms["loss"].backward()
            assert torch.isfinite(terms["loss"])
            assert ("concl" in terms) == (bool(content) and "concl" not in without)
            trained += 1
    assert trained > 3
