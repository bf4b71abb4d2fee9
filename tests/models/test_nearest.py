import pytest
import torch
import torch.nn.functional as F

from stages.models import nearest
from stages.models.nearest import NEIGHBOURS, Neighbours, nearest_items, unit_content

ITEMS = 30


@pytest.fixture
def units() -> torch.Tensor:
    torch.manual_seed(0)
    return F.normalize(torch.randn(ITEMS, 6), dim=-1)


@pytest.mark.parametrize("scores_per_block", [1, 70, 2**25])
def test_the_nearest_items_are_those_of_a_loop_over_all_pairs(units, monkeypatch, scores_per_block):
    monkeypatch.setattr(nearest, "SCORES_PER_BLOCK", scores_per_block)
    every = torch.arange(1, ITEMS + 1)
    found = nearest_items(units, of=every, among=every)
    assert found.items.shape == (ITEMS, NEIGHBOURS)
    for item in every.tolist():
        cosines = {i: float(units[item - 1] @ units[i - 1]) for i in every.tolist() if i != item}
        best = sorted(cosines, key=lambda i: -cosines[i])[:NEIGHBOURS]
        assert found.items[item - 1].tolist() == best
        weights = torch.tensor([cosines[i] / nearest.TEMPERATURE for i in best]).softmax(dim=0)
        torch.testing.assert_close(found.weights[item - 1], weights)


def test_only_the_items_asked_for_are_neighbours(units):
    found = nearest_items(units, of=torch.tensor([3, 8]), among=torch.arange(10, 31))
    assert found.items.shape == (2, NEIGHBOURS)
    assert found.items.min() >= 10


def test_where_there_are_fewer_items_all_of_them_are_neighbours(units):
    found = nearest_items(units, of=torch.tensor([1]), among=torch.tensor([4, 2]))
    assert sorted(found.items[0].tolist()) == [2, 4]
    assert nearest_items(units, of=torch.tensor([4, 2]), among=torch.tensor([4, 2])).items.tolist() == [[2], [4]]


def test_the_mean_of_the_neighbours_is_weighted(units):
    found = Neighbours(torch.tensor([[3, 1]]), torch.tensor([[0.75, 0.25]]))
    torch.testing.assert_close(found.mean(units), (0.75 * units[2] + 0.25 * units[0])[None])


def test_inner_products_of_unit_content_are_the_mean_cosine_of_centred_vectors():
    vectors = {"text": torch.randn(ITEMS, 6) + 3, "image": torch.randn(ITEMS, 4)}
    centred = [matrix - matrix.mean(dim=0) for matrix in vectors.values()]
    cosines = [F.cosine_similarity(matrix[2], matrix[7], dim=0) for matrix in centred]
    units = unit_content(vectors)
    torch.testing.assert_close(units[2] @ units[7], (cosines[0] + cosines[1]) / 2)
    torch.testing.assert_close(units.norm(dim=1), torch.ones(ITEMS))


def test_an_item_at_the_mean_of_one_kind_is_compared_by_the_others_alone():
    torch.manual_seed(1)
    text, image = torch.randn(ITEMS, 5), torch.randn(ITEMS, 4)
    image[3] = image[torch.arange(ITEMS) != 3].mean(dim=0)  # as `embed` fills in for a cover that is missing
    image[3] += 1e-6  # rounding
    found = unit_content({"text": text, "image": image})
    alone = F.normalize(text - text.mean(dim=0), dim=-1)
    torch.testing.assert_close(found[3] @ found.T, alone[3] @ alone.T / 2)


def test_with_a_centre_an_item_at_the_mean_of_all_still_has_no_direction_of_that_kind():
    torch.manual_seed(2)
    image, seen, new = torch.randn(400, 8), torch.arange(400) % 5 > 0, torch.randn(50, 8) + 3
    image[~seen] += 0.7
    without = torch.arange(400) % 2 == 0
    image[without] = image[~without].mean(dim=0)
    assert not unit_content({"image": image}, centre=seen)[without].any()
    both = torch.cat([image, new])
    known = torch.arange(450) < 400
    found = unit_content({"image": both}, centre=F.pad(seen, (0, 50)), embedded=known)
    assert not found[:400][without].any()
    torch.testing.assert_close(found[:400][~without].norm(dim=1), torch.ones(200))
