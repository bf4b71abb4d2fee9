import pytest
import torch

from stages.parallel.placement import choose_placement

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("size", "place"), [(25, GPU), (26, CPU)])
def test_data_may_take_a_quarter_of_the_free_gpu_memory(monkeypatch, size, place):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))  # free, total
    assert choose_placement(size, GPU) == place


def test_on_the_cpu_data_of_any_size_stays_there():
    assert choose_placement(10**15, CPU) == CPU
