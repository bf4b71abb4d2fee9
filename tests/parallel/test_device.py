import pytest
import torch

from stages.errors import InputError
from stages.parallel.device import choose_device


def test_auto_is_an_available_device():
    assert torch.zeros(1, device=choose_device("auto")).sum() == 0


def test_cpu_is_the_cpu_with_deterministic_algorithms():
    assert choose_device("cpu") == torch.device("cpu")
    assert torch.are_deterministic_algorithms_enabled()


def test_auto_does_not_choose_mps_whose_gradients_are_not_deterministic(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert choose_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(("device", "backend"), [("cpu", None), ("cuda", "cuda:nccl,cpu:gloo")])
def test_several_processes_can_reduce_tensors_on_gpus_and_in_main_memory(monkeypatch, device, backend):
    arguments = {}

    class State:
        def __init__(self, cpu, backend):
            arguments.update(cpu=cpu, backend=backend)
            self.device, self.destroy_process_group = torch.device(device, 1), lambda: None

    monkeypatch.setattr("stages.parallel.device.PartialState", State)
    monkeypatch.setattr("torch.zeros", lambda *shape, device: None)  # this machine may have no GPU
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert choose_device(device) == torch.device(device, 1)
    assert arguments == {"cpu": device == "cpu", "backend": backend}


def test_an_unavailable_device_is_an_input_error():
    with pytest.raises(InputError, match="device=cuda:99"):
        choose_device("cuda:99")
