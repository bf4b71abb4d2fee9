from dataclasses import replace
from itertools import chain, combinations

import pytest
import torch
import torch.nn.functional as F

from stages.models.sasrec import Sasrec, SasrecConfig
from stages.models.sicsrec import Sicsrec, SicsrecConfig

ITEMS, DIM = 20, 8
CONFIG = SicsrecConfig(
    items=ITEMS, dim=DIM, layers=2, decoder_layers=1, heads=2, dropout=0.5, item_dropout=0.5, max_length=6,
    tau=0.05, alpha=0.3, lam=1e-4, rank=2, widths={"text": 6, "image": 10}, use_id=True, frozen=("id_encoder",),
)  # fmt: skip
HISTORIES = torch.tensor([[3, 1, 7, 2], [5, 6, 0, 0]])
TARGETS = torch.tensor([[1, 7, 2, 9], [6, 1, 0, 0]])


def subsets(names):
    return chain.from_iterable(combinations(names, n) for n in range(len(names) + 1))


def build(config: SicsrecConfig = CONFIG, pretrained: Sasrec | None = None) -> Sicsrec:
    torch.manual_seed(0)
    model = Sicsrec(config, pretrained)
    if config.widths:
        model.load_content_vectors({name: torch.randn(ITEMS, width) for name, width in config.widths.items()})
    return model


def pretrained() -> Sasrec:
    torch.manual_seed(1)
    return Sasrec(
        SasrecConfig(
            items=ITEMS, dim=DIM, layers=CONFIG.layers, heads=CONFIG.heads, dropout=0.5, max_length=CONFIG.max_length
        )
    ).eval()


@pytest.mark.parametrize("use_id", [True, False])
@pytest.mark.parametrize("content", [(), ("text",), ("image",), ("text", "image")])
def test_every_combination_trains_or_is_refused_with_a_reason(use_id, content):
    if not use_id and not content:
        return  # params.yaml refuses an empty list of modalities
    widths = {name: CONFIG.widths[name] for name in content}
    trained = 0
    for without in subsets(("imse", "cmse", "mmsd", "concl", "lora", "l2norm")):
        for frozen in ((), ("id_encoder",), ("id_embedding", "id_encoder"), ("content_embedding", "content_encoder")):
            config = replace(CONFIG, widths=widths, use_id=use_id, without=without, frozen=frozen)
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


def test_the_paper_s_seven_ablations_are_all_allowed():
    for name in ("imse", "cmse", "mmsd", "concl", "lora", "l2norm"):
        assert replace(CONFIG, without=(name,)).refusal() is None


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"without": ("imse", "cmse")}, "neither"),
        ({"without": ("cmse", "mmsd")}, "nothing that reads content"),
        ({"without": ("imse",), "use_id": False}, "no id"),
        ({"without": ("concl",), "widths": {}}, "neither text nor image"),
        ({"without": ("imse", "lora")}, "no ID encoder"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(changes, word):
    assert word in replace(CONFIG, **changes).refusal()


def test_hidden_equals_the_equations_written_out():
    model = build().eval()
    items, positions = HISTORIES[:1], model.position_embedding.weight[:4]
    h_e = model.id_encoder(model.id_input(model.item_embedding(items) + positions))
    text = model.content.adapters["text"](model.content.tables["text"](items))
    image = model.content.adapters["image"](model.content.tables["image"](items))
    united = (text + image) / (text + image).norm(dim=-1, keepdim=True)  # eq. 10
    h_c = model.content_encoder["content"](model.content_input["content"](united + positions))
    h_m = model.decoder[0](model.decoder_query(h_e), model.decoder_memory(h_c))
    h_a = model.projection(torch.cat([h_e, h_c, h_m], dim=-1))  # eq. 15
    torch.testing.assert_close(model.hidden(items), h_a / h_a.norm(dim=-1, keepdim=True))


def test_the_loss_is_its_terms_weighted_as_in_equation_19():
    terms = build().loss(HISTORIES, TARGETS)
    expected = terms["ce"] + CONFIG.alpha * terms["concl"] + CONFIG.lam * terms["regulariser"]
    torch.testing.assert_close(terms["loss"], expected)


def test_the_contrastive_loss_equals_a_loop_over_other_sequences_items():
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


def test_an_item_outside_the_batch_gets_no_pull_on_its_content():
    model = build()
    model.loss(HISTORIES, TARGETS)["loss"].backward()
    gradient = model.content.tables["text"].weight.grad
    assert gradient[19].abs().max() == 0
    assert gradient[7].abs().max() > 0


def test_the_posttrained_id_stream_starts_as_the_pretrained_encoder():
    encoder = pretrained()
    model = build(CONFIG, encoder).eval()
    positions = model.position_embedding.weight[:4]
    states = model.id_encoder(model.id_input(model.item_embedding(HISTORIES) + positions))
    torch.testing.assert_close(states, encoder.hidden(HISTORIES))


def test_exactly_what_is_frozen_stays():
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


def test_without_lora_the_id_encoder_has_nothing_to_train():
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


def test_padding_changes_nothing():
    model = build().eval()
    torch.testing.assert_close(model.last_hidden(HISTORIES[1:]), model.last_hidden(HISTORIES[1:, :2]))


def test_items_are_ranked_by_the_unit_vectors_that_the_loss_uses():
    model = build(replace(CONFIG, item_dropout=0.0)).eval()
    wanted = TARGETS > 0
    scores = model.hidden(HISTORIES)[wanted] @ model.item_matrix().T / CONFIG.tau
    expected = F.cross_entropy(scores, TARGETS[wanted] - 1)
    torch.testing.assert_close(model.loss(HISTORIES, TARGETS)["ce"], expected)


def test_content_only_scores_against_unit_content_vectors():
    model = build(replace(CONFIG, use_id=False)).eval()
    assert not hasattr(model, "item_embedding")
    torch.testing.assert_close(model.item_matrix().norm(dim=-1), torch.ones(ITEMS))


@pytest.mark.parametrize("use_id", [True, False])
def test_content_starts_at_the_encoders_vectors_less_their_mean_where_items_are_scored_by_it(use_id):
    model = Sicsrec(replace(CONFIG, use_id=use_id))
    vectors = {name: torch.randn(ITEMS, width) + 5 for name, width in CONFIG.widths.items()}
    model.load_content_vectors(vectors)
    for name, table in model.content.tables.items():
        shared = 0 if use_id else vectors[name].mean(dim=0)
        torch.testing.assert_close(table.weight[1:], vectors[name] - shared)


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
