import pytest
import torch

from stages.errors import InputError
from stages.training.device import choose_device


def test_auto_is_a_device_that_is_here():
    assert torch.zeros(1, device=choose_device("auto")).sum() == 0


def test_cpu_is_cpu_and_repeatable():
    assert choose_device("cpu") == torch.device("cpu")
    assert torch.are_deterministic_algorithms_enabled()


def test_a_device_that_is_not_here_is_an_input_error():
    with pytest.raises(InputError, match="device=cuda:99"):
        choose_device("cuda:99")
