import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stages.models.baselines.missrec import MissRec, MissRecConfig
from stages.models.layers import Attention

GENERATOR = torch.Generator().manual_seed(0)
VECTORS = {"text": torch.randn(20, 6, generator=GENERATOR), "image": torch.randn(20, 4, generator=GENERATOR)}


def small_model(content=("text", "image"), use_id=True) -> MissRec:
    torch.manual_seed(0)
    vectors = {name: VECTORS[name] for name in content}
    widths = {name: table.shape[1] for name, table in vectors.items()}
    model = MissRec(
        MissRecConfig(items=20, dim=8, dropout=0.5, max_length=5, widths=widths, use_id=use_id), vectors
    ).eval()
    model.start_epoch(0)
    return model


def test_an_interest_is_the_centre_of_the_items_that_have_it():
    model = small_model()
    points = model.adapted(torch.arange(1, 21))
    assert model.config.interests == 20
    for modality, table in enumerate(points):
        for item in range(1, 21):
            own = int(model.interest_of[modality, item])
            distances = (model.interests[1:] - table[item - 1]).norm(dim=1)
            assert distances[own - 1] <= distances.min() + 1e-4


def test_interest_tokens_are_the_unique_interests_of_the_row():
    model = small_model()
    items = torch.tensor([[3, 1, 3], [7, 0, 0]])
    tokens = model.interest_tokens(items)
    for row, history in zip(tokens, ([3, 1], [7]), strict=True):
        tokens_of_row = row[row > 0].tolist()
        expected = {int(model.interest_of[m, item]) for m in range(2) for item in history}
        assert len(tokens_of_row) == len(set(tokens_of_row))
        assert set(tokens_of_row) == expected


def test_two_modalities_are_weighted_by_a_softmax_of_their_own_cosines():
    model = small_model()
    with torch.no_grad():
        model.fusion.fill_(1.5)
    hidden, matrix = F.normalize(torch.randn(3, 8), dim=-1), model.item_matrix()
    scores = model.scores(hidden, matrix)
    for user in range(3):
        for item in range(20):
            text, image, ids = (matrix[part, item] @ hidden[user] for part in range(3))
            weights = torch.softmax(1.5 * torch.stack([text, image]), dim=0)
            content = weights[0] * text + weights[1] * image
            torch.testing.assert_close(scores[user, item], (2 * content + ids) / 3)


@pytest.mark.parametrize("use_id", [False, True])
def test_one_modality_is_scored_by_the_cosine_with_text_and_id_together(use_id):
    model = small_model(("text",), use_id)
    hidden = F.normalize(torch.randn(3, 8), dim=-1)
    vectors = model.adapted(torch.arange(1, 21))[0] + (model.item_embedding.weight[1:] if use_id else 0)
    expected = F.cosine_similarity(hidden[:, None], vectors[None], dim=-1)
    torch.testing.assert_close(model.scores(hidden, model.item_matrix()), expected)


def test_padding_does_not_change_a_state():
    model = small_model()
    torch.testing.assert_close(
        model.last_hidden(torch.tensor([[3, 1]])), model.last_hidden(torch.tensor([[3, 1, 0, 0]]))
    )


def test_the_loss_is_of_the_prefix_s_target_alone():
    model = small_model()
    items, targets = torch.tensor([[3, 1, 0]]), torch.tensor([[0, 7, 0]])
    terms = model.loss(items, targets)
    scores = model.scores(model.last_hidden(items), model.item_matrix())[0] / 0.07
    torch.testing.assert_close(terms["ce"], -F.log_softmax(scores, dim=0)[6])
    torch.testing.assert_close(terms["loss"], terms["ce"] + 1e-4 * terms["regulariser"])


def test_the_same_seed_gives_the_same_interests():
    model = small_model()
    first = model.interests.clone()
    model.start_epoch(0)
    assert torch.equal(model.interests, first)
    assert np.isfinite(first.numpy()).all()


def plain(layer: Attention) -> Attention:
    """Attention over keys and values with the layer's weights."""
    twin = Attention(dim=8, heads=4, dropout=0.5).eval()
    twin.load_state_dict(layer.state_dict())
    return twin


def test_the_encoder_attends_over_the_row_s_interests():
    model = small_model()
    items = torch.tensor([[3, 1, 9, 4], [7, 0, 0, 0]])
    memory, visible = model.encode_interests(items)
    for row in range(2):
        interests = model.interests[model.interest_tokens(items[row : row + 1])[0]][None, visible[row]]
        every_one = torch.ones(interests.shape[:2], dtype=torch.bool)
        attended = plain(model.interest_attention)(interests, interests, every_one)
        expected = model.encoder_norm(model.interest_feed_forward(attended))
        torch.testing.assert_close(memory[row : row + 1, visible[row]], expected)


def test_the_decoder_reads_items_and_interests_at_the_last_position():
    model = small_model()
    items = torch.tensor([[3, 1, 9, 4]])
    memory, visible = model.encode_interests(items)
    vectors = sum(model.adapted(items[0])) + model.item_embedding(items[0])
    x = model.input(vectors + model.position_embedding.weight[:4])[None]
    every = plain(model.cross_attention)(plain(model.self_attention)(x, x, items > 0), memory, visible)
    expected = F.normalize(model.decoder_norm(model.feed_forward(every[:, -1])), dim=-1)
    torch.testing.assert_close(model.decode(items, memory, visible), expected)
