from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from stages.models.content_scoring import content_scored_vectors, neighbours_of_unseen
from stages.models.nearest import NEIGHBOURS, TEMPERATURE
from tests.models.test_sicsrec import CONFIG, HISTORIES, ITEMS, build

SEEN = torch.tensor([item not in (4, 11) for item in range(1, ITEMS + 1)])
torch.manual_seed(7)
VECTORS = {name: torch.randn(ITEMS, width) for name, width in CONFIG.widths.items()}


def unit_vectors(model, item: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An item's unit ID vector and unit content vector, by the equations."""
    content = model.content
    added = sum(content.adapters[name](content.tables[name].weight[item]) for name in content.tables)
    return F.normalize(model.item_embedding.weight[item], dim=-1), F.normalize(added, dim=-1)


def scored(model, seen: torch.Tensor = SEEN, weight: float = 0.3, unseen_scale: float = 1.0) -> torch.Tensor:
    neighbours = neighbours_of_unseen(model, seen, VECTORS)
    return content_scored_vectors(model, seen, neighbours, weight=weight, unseen_scale=unseen_scale)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_seen_item_s_vector_mixes_its_unit_vectors_by_the_weight(weight):
    model = build().eval()
    vectors = scored(model, weight=weight)
    for item in (1, 9, 20):
        of_id, content = unit_vectors(model, item)
        torch.testing.assert_close(vectors[item - 1], (1 - weight) * of_id + weight * content)


@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_an_unseen_item_s_vector_is_the_scaled_mean_of_its_nearest_seen_items_by_content(scale):
    model = build().eval()
    vectors = scored(model, unseen_scale=scale)
    seen = [item for item in range(1, ITEMS + 1) if SEEN[item - 1]]
    kinds = [torch.stack([unit_vectors(model, item)[1] for item in range(1, ITEMS + 1)]), *VECTORS.values()]
    for unseen in (4, 11):
        cosines = {i: torch.zeros(()) for i in seen}
        for matrix in kinds:
            center = matrix[SEEN].mean(dim=0)
            own = matrix[unseen - 1] - center
            for i in seen:
                cosines[i] += F.cosine_similarity(own, matrix[i - 1] - center, dim=0) / len(kinds)
        nearest = sorted(seen, key=lambda i: -cosines[i])[:NEIGHBOURS]
        weights = torch.stack([cosines[i] / TEMPERATURE for i in nearest]).softmax(dim=0)
        expected = sum(weight * vectors[i - 1] for weight, i in zip(weights, nearest, strict=True))
        torch.testing.assert_close(vectors[unseen - 1], scale * expected)


def test_the_id_vector_of_an_unseen_item_counts_for_nothing():
    model = build().eval()
    before = scored(model)
    with torch.no_grad():
        model.item_embedding.weight[4] = 100 * torch.randn(CONFIG.dim)
    assert torch.equal(scored(model), before)


def test_with_weight_zero_and_all_items_seen_the_vectors_are_those_of_equation_16():
    model = build().eval()
    assert torch.equal(scored(model, torch.ones(ITEMS, dtype=torch.bool), weight=0.0), model.item_matrix())


def test_without_id_items_are_scored_by_content_and_unseen_ones_by_their_neighbours():
    model = build(replace(CONFIG, use_id=False)).eval()
    vectors = scored(model)
    torch.testing.assert_close(vectors[SEEN], model.item_matrix()[SEEN])
    assert not torch.allclose(vectors[~SEEN], model.item_matrix()[~SEEN])


def test_a_model_ranks_by_the_vectors_it_was_given():
    model = build().eval()
    states, vectors = model.last_hidden(HISTORIES), torch.randn(ITEMS, CONFIG.dim)
    model.rank_by(vectors, content_weight=0.3)
    assert model.config.content_weight == 0.3
    assert torch.equal(model.item_matrix(), vectors)
    assert torch.equal(model.last_hidden(HISTORIES), states)
