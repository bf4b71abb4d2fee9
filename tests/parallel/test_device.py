import pytest
import torch

from stages.errors import InputError
from stages.parallel.device import choose_device, uses_bfloat16


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


@pytest.fixture
def own_precision(monkeypatch):
    """The process's precision as it was, after the test."""
    monkeypatch.setattr("stages.parallel.device._precision", "auto")


@pytest.mark.parametrize(
    ("precision", "gpu_has_it", "on_cpu", "on_gpu"),
    [
        ("auto", True, False, True),
        ("auto", False, False, False),
        ("float32", True, False, False),
        ("bfloat16", True, True, True),
    ],
)
def test_the_precision_is_the_params_or_the_devices(own_precision, monkeypatch, precision, gpu_has_it, on_cpu, on_gpu):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: gpu_has_it)
    choose_device("cpu", precision)
    assert uses_bfloat16(torch.device("cpu")) == on_cpu
    assert uses_bfloat16(torch.device("cuda")) == on_gpu
    choose_device("cpu")
    assert not uses_bfloat16(torch.device("cpu"))


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_without_bfloat16_is_refused_for_it(own_precision, monkeypatch, device):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr("torch.zeros", lambda *shape, device: None)
    with pytest.raises(InputError, match=f"^precision=bfloat16: {device} has no bfloat16: set precision=auto or"):
        choose_device(device, "bfloat16")
