import numpy as np
import pytest
import torch

from stages.models.sasrec import Sasrec, SasrecConfig
from stages.training import recommending
from stages.training.recommending import best_items, columns_above, highest, top_items

CPU = torch.device("cpu")


def model(kind: type[Sasrec] = Sasrec) -> Sasrec:
    torch.manual_seed(0)
    return kind(SasrecConfig(items=12, dim=8, layers=1, heads=2, dropout=0.5, max_length=3)).eval()


def test_the_best_items_are_those_with_the_highest_scores():
    sasrec = model()
    numbers, scores = best_items(sasrec, [4, 2], top=3, viewed=True, max_length=3, device=CPU)
    expected = (sasrec.hidden(torch.tensor([[4, 2]]))[0, -1] @ sasrec.item_matrix().T).topk(3)
    torch.testing.assert_close(torch.tensor(scores), expected.values)
    assert numbers == (expected.indices + 1).tolist()


def test_without_viewed_items_all_other_items_are_recommended():
    numbers, _ = best_items(model(), [4, 2], top=50, viewed=False, max_length=3, device=CPU)
    assert sorted(numbers) == [item for item in range(1, 13) if item not in (2, 4)]


def test_the_model_reads_the_latest_items_and_all_viewed_items_are_left_out():
    def best(history, viewed):
        return best_items(model(), history, top=50, viewed=viewed, max_length=3, device=CPU)

    assert best([9, 8, 7, 6, 5], viewed=True) == best([7, 6, 5], viewed=True)
    assert 9 not in best([9, 8, 7, 6, 5], viewed=False)[0]


class Negated(Sasrec):
    """The scores of SASRec with the opposite sign."""

    def scores(self, hidden, items):
        return -hidden @ items.T


def test_a_model_s_own_scores_are_used():
    worst_first, _ = best_items(model(Negated), [4, 2], top=12, viewed=True, max_length=3, device=CPU)
    best_first, _ = best_items(model(), [4, 2], top=12, viewed=True, max_length=3, device=CPU)
    assert worst_first == best_first[::-1]


@pytest.mark.parametrize("top", [1, 5, 12])
@pytest.mark.parametrize("group", [1, 2, 16])
def test_blocks_of_items_give_what_one_matrix_product_and_a_sort_give(top, group, monkeypatch):
    monkeypatch.setattr(recommending, "ITEMS_PER_GROUP", group)
    sasrec, hidden = model(), torch.randn(6, 8)
    rows, items = torch.tensor([0, 0, 3, 5, 5]), torch.tensor([12, 1, 7, 5, 6])
    naive = (hidden @ sasrec.item_matrix().T).detach().numpy()
    naive[rows, items - 1] = -np.inf
    order = np.argsort(-naive, axis=1)[:, :top]
    for size in (1, 4, 5, 12):
        monkeypatch.setattr(recommending, "SCORES_PER_CPU_BLOCK", size * len(hidden))
        numbers, scores = top_items(sasrec, sasrec.item_matrix(), hidden, (rows, items), top=top)
        np.testing.assert_allclose(scores, np.take_along_axis(naive, order, axis=1), rtol=1e-5, atol=1e-7)
        finite = torch.isfinite(scores)
        assert numbers[finite].tolist() == (order + 1)[finite].tolist()


@pytest.mark.parametrize(("columns", "top"), [(50, 7), (50, 50), (500, 2)])  # the last by torch.topk
def test_the_highest_scores_are_those_of_a_sort(columns, top):
    scores = torch.randn(6, columns, generator=torch.Generator().manual_seed(1))
    expected = scores.sort(dim=1, descending=True)
    values, found = highest(scores, top)
    torch.testing.assert_close(values, expected.values[:, :top], rtol=0, atol=0)
    assert found.tolist() == expected.indices[:, :top].tolist()


@pytest.mark.parametrize("top", [1, 5, 40])
@pytest.mark.parametrize("size", [3, 40])
def test_of_equal_scores_the_item_with_the_lower_number_comes_first(top, size, monkeypatch):
    monkeypatch.setattr(recommending, "SCORES_PER_CPU_BLOCK", size * 6)
    hidden = torch.eye(6)
    matrix = torch.randint(3, (40, 6), generator=torch.Generator().manual_seed(1)).float()  # scores 0, 1 and 2
    numbers, scores = top_items(model(), matrix, hidden, None, top=top)
    expected = (hidden @ matrix.T).sort(dim=1, descending=True, stable=True)
    assert numbers.tolist() == (expected.indices + 1)[:, :top].tolist()
    assert scores.tolist() == expected.values[:, :top].tolist()


def test_columns_above_hold_every_score_above_the_lowest_and_few_others():
    scores = torch.randn(6, 1000, generator=torch.Generator().manual_seed(1))
    lowest = scores.sort(dim=1).values[:, -5:-4]  # four scores of each row are above it
    columns = columns_above(scores, lowest)
    for row, above in enumerate(scores > lowest):
        assert set(above.nonzero().flatten().tolist()) <= set(columns[row].tolist())
        assert len(set(columns[row].tolist())) == columns.shape[1]  # none twice
    assert columns.shape[1] <= 4 * 16 + 1000 % 16


def test_where_no_score_is_above_the_lowest_only_what_no_group_holds_is_left():
    assert columns_above(torch.zeros(2, 35), torch.ones(2, 1)).tolist() == [[32, 33, 34]] * 2
