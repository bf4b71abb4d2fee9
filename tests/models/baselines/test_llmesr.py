import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stages.errors import InputError
from stages.models.baselines.llmesr import (
    LlmEsr,
    LlmEsrConfig,
    collaborative_start,
    similar_users,
)

RNG = np.random.default_rng(0)
VECTORS = {"text": RNG.normal(size=(20, 6)).astype(np.float32), "image": RNG.normal(size=(20, 4)).astype(np.float32)}
HISTORIES = [[1, 2, 3], [4, 5], [1, 2], [6, 7, 8, 9]]
INPUTS = np.array([[1, 2, 0], [4, 0, 0], [1, 0, 0], [6, 7, 8]])
VALUES, OFFSETS = np.concatenate(HISTORIES), np.cumsum([0, *map(len, HISTORIES)])


def small_model() -> LlmEsr:
    torch.manual_seed(0)
    config = LlmEsrConfig(items=20, dim=8, dropout=0.5, max_length=5, widths={"text": 6, "image": 4}, neighbours=2)
    near = similar_users(VECTORS["text"], VALUES, OFFSETS, 2)
    start = collaborative_start(VECTORS, dim=8, seed=0)
    return LlmEsr(config, VECTORS, start, near, INPUTS).eval()


def test_neighbours_are_the_other_users_with_the_nearest_mean_vector():
    near = similar_users(VECTORS["text"], VALUES, OFFSETS, 2)
    means = [VECTORS["text"][np.array(h) - 1].mean(axis=0) for h in HISTORIES]
    for user, mean in enumerate(means):
        cosines = [m @ mean / np.linalg.norm(m) / np.linalg.norm(mean) for m in means]
        cosines[user] = -2
        assert near[user].tolist() == np.argsort(cosines)[::-1][:2].tolist()


def test_one_user_alone_has_no_similar_users():
    with pytest.raises(InputError, match="there is one user alone: leave it out of baselines"):
        similar_users(VECTORS["text"], VALUES[:2], OFFSETS[:2], 2)


def test_distillation_is_the_distance_from_the_neighbours_mean_state_which_gets_no_gradient():
    model = small_model()
    states = model.hidden(torch.tensor([[1, 2, 3]]))[:, -1]
    teachers = [model.last_hidden(model.histories[n][None])[0] for n in model.neighbours[0]]
    expected = F.mse_loss(states[0], torch.stack(teachers).mean(dim=0))
    distilled = model.distil(states, torch.tensor([0]))
    torch.testing.assert_close(distilled, expected)
    (gradient,) = torch.autograd.grad(distilled, states)
    torch.testing.assert_close(gradient[0], 2 * (states[0] - torch.stack(teachers).mean(dim=0)) / 16)


def test_the_last_state_alone_is_the_last_of_all_states():
    model, items = small_model(), torch.tensor([[6, 7, 8], [4, 5, 0], [2, 0, 0]])
    every = model.hidden(items)
    torch.testing.assert_close(model.last_hidden(items), torch.stack([every[0, 2], every[1, 1], every[2, 0]]))


def test_id_embeddings_start_at_the_principal_components():
    start = collaborative_start(VECTORS, dim=4, seed=0)
    joined = np.concatenate([v / np.linalg.norm(v, axis=1, keepdims=True) for v in VECTORS.values()], axis=1)
    centred = joined - joined.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(start), np.abs(centred @ axes[:4].T), atol=1e-5)


def test_dimensions_beyond_the_components_start_from_a_normal():
    start = collaborative_start({"text": VECTORS["image"]}, dim=10, seed=0)
    assert start.shape == (20, 10)
    assert 0.005 < start[:, 4:].std() < 0.04


def test_a_score_adds_both_views():
    model = small_model()
    hidden, items = model.last_hidden(torch.tensor([[1, 2]])), model.item_matrix()
    ids, semantic = model.views(torch.arange(1, 21))
    torch.testing.assert_close(hidden @ items.T, hidden[:, :8] @ ids.T + hidden[:, 8:] @ semantic.T)


def test_the_loss_adds_the_weighted_distillation():
    model = small_model()
    items, targets = torch.tensor([[1, 2], [4, 0]]), torch.tensor([[2, 3], [5, 0]])
    terms = model.loss(items, targets, np.array([0, 1]))
    torch.testing.assert_close(terms["loss"], terms["ce"] + 0.1 * terms["distillation"])
