import pytest
import torch

from stages.parallel.static_shapes import select_targets, unique_items
from tests.parallel.fake_cuda import fake_cuda, forbid_sync

ITEMS = torch.tensor([[7, 2, 7], [0, 9, 2]])
TARGETS = torch.tensor([[2, 7, 0], [9, 0, 0]])


def test_unique_items_are_sorted_and_the_inverse_gives_the_input():
    items, inverse, valid = unique_items(ITEMS)
    assert items.tolist() == [0, 2, 7, 9]
    assert valid.all()
    assert torch.equal(items[inverse], ITEMS)


def test_on_a_gpu_the_last_unique_item_is_the_padding_and_nothing_synchronises():
    with fake_cuda() as gpu:
        on_gpu = ITEMS.to(gpu)
        with forbid_sync():
            items, inverse, valid = unique_items(on_gpu)
        assert items.tolist() == [0, 2, 7, 9, 9, 9]
        assert valid.tolist() == [True] * 4 + [False] * 2
        assert items[inverse].tolist() == ITEMS.tolist()


def test_on_the_cpu_only_positions_with_a_target_are_selected():
    states = torch.arange(6.0).view(2, 3, 1)
    selected, answers = select_targets(states, TARGETS)
    assert selected.flatten().tolist() == [0, 1, 3]
    assert answers.tolist() == [2, 7, 9]


def test_on_a_gpu_all_positions_are_selected():
    states = torch.arange(6.0).view(2, 3, 1)
    with fake_cuda() as gpu:
        on_gpu = states.to(gpu), TARGETS.to(gpu)
        with forbid_sync():
            selected, answers = select_targets(*on_gpu)
        assert selected.flatten().tolist() == [0, 1, 2, 3, 4, 5]
        assert answers.tolist() == [2, 7, 0, 9, 0, 0]


@pytest.mark.parametrize(
    "synchronise",
    [lambda t: t[t > 2], lambda t: t.unique(), lambda t: int(t[0]), lambda t: t.cpu(), lambda t: t.tolist()],
)
def test_the_fake_gpu_refuses_what_synchronises(synchronise):
    with fake_cuda() as gpu:
        on_gpu = torch.tensor([1, 3]).to(gpu)
        synchronise(on_gpu)
        with forbid_sync(), pytest.raises(RuntimeError, match="waits for the GPU"):
            synchronise(on_gpu)
