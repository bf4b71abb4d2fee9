import pytest
import torch

from stages.errors import InputError
from stages.parallel.device import choose_device


def test_auto_is_a_device_that_is_here():
    assert torch.zeros(1, device=choose_device("auto")).sum() == 0


def test_cpu_is_cpu_and_repeatable():
    assert choose_device("cpu") == torch.device("cpu")
    assert torch.are_deterministic_algorithms_enabled()


def test_auto_leaves_out_mps_whose_gradients_are_not_repeatable(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert choose_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(("device", "backend"), [("cpu", None), ("cuda", "cuda:nccl,cpu:gloo")])
def test_several_processes_can_add_up_what_is_on_cards_and_what_is_in_main_memory(monkeypatch, device, backend):
    met = {}

    class State:
        def __init__(self, cpu, backend):
            met.update(cpu=cpu, backend=backend)
            self.device, self.destroy_process_group = torch.device(device, 1), lambda: None

    monkeypatch.setattr("stages.parallel.device.PartialState", State)
    monkeypatch.setattr("torch.zeros", lambda *shape, device: None)  # there may be no card here
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert choose_device(device) == torch.device(device, 1)
    assert met == {"cpu": device == "cpu", "backend": backend}


def test_a_device_that_is_not_here_is_an_input_error():
    with pytest.raises(InputError, match="device=cuda:99"):
        choose_device("cuda:99")
