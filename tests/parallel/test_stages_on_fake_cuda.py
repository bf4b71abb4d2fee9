"""Every stage that trains or ranks, on a fake GPU that refuses what CUDA refuses (see fake_cuda.py)."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from polars.testing import assert_frame_equal
from ruamel.yaml import YAML

from stages.models.systems import SYSTEMS
from stages.parallel.device import choose_device
from stages.serving.recommendations import Choice, recommend_items
from stages.serving.requests import all_users
from stages.serving.trained import load_trained
from stages.training.fit import Step
from tests.encoders.test_image import saved as saved_image_encoder
from tests.encoders.test_text import saved as saved_text_encoder
from tests.models import test_sicsrec
from tests.models.test_systems import TRAINED, batches, build
from tests.parallel.fake_cuda import FakeCudaTensor, fake_cuda, forbid_sync

STAGES = ("sft", "embed", "pretrain", "posttrain", "evaluate", "baseline")
SICSREC = {
    "as the default": {},
    "content first": {"frozen": ["content_embedding", "content_encoder"]},
    "content alone": {"modalities": ["text", "image"]},
    "smoothed targets, scored with content": {"smoothing": 0.1, "content_weight": "auto"},
    "smoothed targets, sampled negatives": {"smoothing": 0.1, "loss": {"negatives": 16}},
    "without l2norm, with sampled negatives": {"without": ["l2norm"], "loss": {"negatives": 16}},
}


@contextmanager
def on_gpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, fake_cuda() as gpu:
        for name in STAGES:
            patch.setattr(importlib.import_module(f"stages.{name}"), "choose_device", lambda *_: gpu)
        patch.setattr("stages.parallel.device.choose_device", lambda *_: gpu)  # distill imports it when it trains
        yield


@contextmanager
def in_bfloat16() -> Iterator[None]:
    """On the CPU with precision=bfloat16."""
    AcceleratorState._reset_state(True)
    content = YAML(typ="safe").load(Path("params.yaml"))
    YAML().dump(content | {"precision": "bfloat16"}, Path("params.yaml"))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("stages.ISA_LIMIT", "")  # or the limit would stay lifted in later tests
            yield
    finally:
        AcceleratorState._reset_state(True)
        choose_device("cpu")


@contextmanager
def on_gpu_without_sync() -> Iterator[None]:
    """Within, the forward and the backward pass of a training step must not synchronise with the GPU."""
    forward, backward = Step.forward, Accelerator.backward

    def without_sync(function):
        def call(*arguments):
            with forbid_sync():
                return function(*arguments)

        return call

    with pytest.MonkeyPatch.context() as patch, on_gpu():
        patch.setattr(Step, "forward", without_sync(forward))
        patch.setattr(Accelerator, "backward", without_sync(backward))
        yield


def all_are_ranked(name: str) -> bool:
    """Whether every user's test item has a rank among the 40 items."""
    return bool(pl.read_parquet(f"artifacts/ranks/{name}.parquet")["rank"].is_between(1, 40).all())


@pytest.mark.parametrize("place", [on_gpu, in_bfloat16])
def test_small_encoders_are_tuned_and_embed_items(after, place):
    workspace = after("pairs")
    with place():
        workspace.run("sft", "embed")
    assert len(pl.read_parquet("artifacts/embeddings.parquet")) == 40


@pytest.mark.parametrize("train", ["last_block", "all"])
@pytest.mark.parametrize(
    ("text", "image"),
    [("bert", "vit_tiny_patch16_224"), ("roberta", "swin_tiny_patch4_window7_224"), ("t5", "resnet10t")],
)
def test_pretrained_encoders_are_tuned_and_embed_items(after, text, image, train):
    workspace = after("pairs")
    text_encoder, image_encoder = saved_text_encoder(Path("text"), text), saved_image_encoder(Path("image"), image)
    workspace.set_params(text_encoder=text_encoder, image_encoder=image_encoder, sft={"train": train, "epochs": 1})
    # for a whole text model transformers synchronises once a step, to see whether there is padding
    with on_gpu_without_sync() if train == "last_block" else on_gpu():
        workspace.run("sft", "embed")
    assert len(pl.read_parquet("artifacts/embeddings.parquet")) == 40


@pytest.mark.parametrize("place", [on_gpu_without_sync, in_bfloat16])
@pytest.mark.parametrize("changes", SICSREC.values(), ids=SICSREC)
def test_pretrain_posttrain_and_evaluate_run(after, changes, place):
    workspace = after("embed")
    workspace.set_params(**changes)
    with place():
        workspace.run("neighbours", "pretrain", "posttrain", "evaluate")
    assert all_are_ranked("sicsrec")


@pytest.mark.parametrize("place", [on_gpu_without_sync, in_bfloat16])
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_other_system_is_trained_and_ranked(after, name, place):
    workspace = after("embed")
    workspace.set_params(baseline={"epochs": 1, "batch_positions": 256})
    with place():
        workspace.run_baseline(name)
    assert all_are_ranked(name)


@pytest.mark.parametrize("place", [on_gpu_without_sync, in_bfloat16])
def test_sicsrec_is_taught_by_a_sum_of_scores(after, place):
    workspace = after("posttrain")
    changes = {"baseline": {"epochs": 1, "batch_positions": 256}, "baselines": ["missrec_t_id"], "distill": 2}
    workspace.set_params(**changes, fuse=["sicsrec", "missrec_t_id"])
    workspace.run_baseline("missrec_t_id")
    workspace.run("fuse")
    with place():
        workspace.run("distill")
    assert all_are_ranked("distilled")


@pytest.mark.parametrize("keep_viewed", [True, False])
def test_recommendations_on_the_gpu_equal_those_on_the_cpu(after, keep_viewed, monkeypatch):
    after("evaluate")
    choice = Choice(top=10, keep_viewed=keep_viewed)
    expected = recommend_items(load_trained("cpu"), all_users(), choice)
    with fake_cuda() as gpu:
        monkeypatch.setattr("stages.serving.trained.choose_device", lambda *_: gpu)
        trained = load_trained("cuda")
        assert trained.device == gpu
        found = recommend_items(trained, all_users(), choice)
    assert_frame_equal(found, expected, rel_tol=1e-4, abs_tol=1e-5)


def model_and_batch(name: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """A model and a batch with padding."""
    if name == "sicsrec":
        return test_sicsrec.build(), (test_sicsrec.HISTORIES, test_sicsrec.TARGETS)
    model = build(name)
    if hasattr(model, "start_epoch"):
        model.start_epoch(seed=0)
    return model, next(batch for batch in batches(name, 0) if (batch[0] == 0).any())


def loss_and_gradients(model: torch.nn.Module, batch: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    loss = model.eval().loss(*batch)["loss"]
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None} | {"loss": loss.detach()}
    return {name: tensor.inner if isinstance(tensor, FakeCudaTensor) else tensor for name, tensor in found.items()}


@pytest.mark.parametrize("name", ["sicsrec", *TRAINED])
def test_loss_and_gradients_on_the_gpu_equal_those_on_the_cpu(name):
    """The GPU computes all positions, the CPU only those with a target (stages/parallel/static_shapes.py)."""
    expected = loss_and_gradients(*model_and_batch(name))
    with fake_cuda() as gpu:
        model, batch = model_and_batch(name)
        found = loss_and_gradients(
            model.to(gpu), tuple(part.to(gpu) if isinstance(part, torch.Tensor) else part for part in batch)
        )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
