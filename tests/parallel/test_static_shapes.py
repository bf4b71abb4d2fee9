import pytest
import torch

from stages.parallel.static_shapes import select_targets, unique_items
from tests.parallel.pretend_card import never_waiting, pretend_card

ITEMS = torch.tensor([[7, 2, 7], [0, 9, 2]])
TARGETS = torch.tensor([[2, 7, 0], [9, 0, 0]])


def test_each_item_once_and_where_it_stands():
    items, where, real = unique_items(ITEMS)
    assert items.tolist() == [0, 2, 7, 9]
    assert real.all()
    assert torch.equal(items[where], ITEMS)


def test_on_a_card_the_last_one_fills_up_and_nobody_waits():
    with pretend_card() as card:
        there = ITEMS.to(card)
        with never_waiting():
            items, where, real = unique_items(there)
        assert items.tolist() == [0, 2, 7, 9, 9, 9]
        assert real.tolist() == [True] * 4 + [False] * 2
        assert items[where].tolist() == ITEMS.tolist()


def test_positions_with_a_target():
    states = torch.arange(6.0).view(2, 3, 1)
    found, answers = select_targets(states, TARGETS)
    assert found.flatten().tolist() == [0, 1, 3]
    assert answers.tolist() == [2, 7, 9]


def test_on_a_card_all_positions():
    states = torch.arange(6.0).view(2, 3, 1)
    with pretend_card() as card:
        there = states.to(card), TARGETS.to(card)
        with never_waiting():
            found, answers = select_targets(*there)
        assert found.flatten().tolist() == [0, 1, 2, 3, 4, 5]
        assert answers.tolist() == [2, 7, 0, 9, 0, 0]


@pytest.mark.parametrize(
    "ask", [lambda t: t[t > 2], lambda t: t.unique(), lambda t: int(t[0]), lambda t: t.cpu(), lambda t: t.tolist()]
)
def test_the_pretended_card_knows_what_waits(ask):
    with pretend_card() as card:
        there = torch.tensor([1, 3]).to(card)
        ask(there)
        with never_waiting(), pytest.raises(RuntimeError, match="waits for the card"):
            ask(there)
