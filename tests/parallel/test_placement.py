import pytest
import torch

from stages.parallel.placement import choose_placement

CPU, CARD = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("size", "there"), [(25, CARD), (26, CPU)])
def test_a_quarter_of_a_cards_free_memory_is_room(monkeypatch, size, there):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))  # free, in all
    assert choose_placement(size, CARD) == there


def test_main_memory_is_not_asked():
    assert choose_placement(10**15, CPU) == CPU
