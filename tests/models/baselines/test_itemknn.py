import numpy as np
import pytest
import torch

from stages.models.baselines.itemknn import ItemKnn, ItemKnnConfig, similarities

HISTORIES = [[1, 2, 3], [2, 3], [3, 1, 4, 5, 2, 1, 3]]


def naive_score(history: list[int], candidate: int, decay: float) -> float:
    """Every pair of every history, counted one by one."""
    similarity = dict.fromkeys([(i, candidate) for i in range(1, 6)], 0.0)
    for items in HISTORIES:
        for a in range(len(items)):
            for b in range(len(items)):
                if a != b and abs(a - b) <= 5 and items[b] == candidate:
                    similarity[items[a], candidate] += (1 if b > a else 0.5) / abs(a - b)
    popularity = sum(items.count(candidate) for items in HISTORIES)
    ages = range(len(history) - 1, -1, -1)
    return sum(decay**age * similarity[i, candidate] for age, i in zip(ages, history, strict=True)) / popularity**0.3


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_scores_are_those_of_a_count_pair_by_pair(decay):
    pairs, similarity = similarities(np.concatenate(HISTORIES), np.cumsum([0, *map(len, HISTORIES)]), items=5)
    model = ItemKnn(ItemKnnConfig(items=5, pairs=len(similarity), decay=decay))
    model.load_state_dict({"pairs": pairs, "similarity": similarity})
    scores = model.scores(model.last_hidden(torch.tensor([[1, 2, 0], [4, 1, 3]])), model.item_matrix())
    expected = [[naive_score(h, candidate, decay) for candidate in range(1, 6)] for h in ([1, 2], [4, 1, 3])]
    torch.testing.assert_close(scores, torch.tensor(expected))


def test_histories_of_one_item_have_no_pairs_and_every_score_is_zero():
    pairs, similarity = similarities(np.array([1, 3]), np.array([0, 1, 2]), items=5)
    assert pairs.shape == (2, 0) and similarity.shape == (0,)
    model = ItemKnn(ItemKnnConfig(items=5, pairs=0, decay=1.0))
    assert torch.equal(model.scores(torch.ones(2, 5), model.item_matrix()), torch.zeros(2, 5))


def test_a_catalogue_whose_pairs_would_fill_any_memory_is_scored():
    items = 10**6  # 4 TB as a matrix
    pairs, similarity = similarities(np.array([1, items]), np.array([0, 2]), items=items)
    model = ItemKnn(ItemKnnConfig(items=items, pairs=len(similarity), decay=1.0))
    model.load_state_dict({"pairs": pairs, "similarity": similarity})
    scores = model.scores(model.last_hidden(torch.tensor([[1]])), model.item_matrix())
    assert scores.shape == (1, items) and scores.nonzero().tolist() == [[0, items - 1]]
