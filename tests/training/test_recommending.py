import torch

from stages.models.sasrec import Sasrec, SasrecConfig
from stages.training.recommending import best_items

CPU = torch.device("cpu")


def model() -> Sasrec:
    torch.manual_seed(0)
    return Sasrec(SasrecConfig(items=12, dim=8, layers=1, heads=2, dropout=0.5, max_length=3)).eval()


def test_the_best_items_are_those_with_the_highest_scores():
    sasrec = model()
    numbers, scores = best_items(sasrec, [4, 2], 3, True, 3, CPU)
    expected = (sasrec.hidden(torch.tensor([[4, 2]]))[0, -1] @ sasrec.item_matrix().T).topk(3)
    torch.testing.assert_close(torch.tensor(scores), expected.values)
    assert numbers == (expected.indices + 1).tolist()


def test_viewed_items_are_left_out_and_the_rest_is_all_there_is():
    numbers, _ = best_items(model(), [4, 2], 50, False, 3, CPU)
    assert sorted(numbers) == [item for item in range(1, 13) if item not in (2, 4)]


def test_only_the_latest_items_are_read_but_all_are_left_out():
    long, short = (best_items(model(), history, 50, True, 3, CPU) for history in ([9, 8, 7, 6, 5], [7, 6, 5]))
    assert long == short
    assert 9 not in best_items(model(), [9, 8, 7, 6, 5], 50, False, 3, CPU)[0]
