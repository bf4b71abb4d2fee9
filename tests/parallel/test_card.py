"""Every stage that trains or ranks, on a card that is not there: what a card would refuse fails here too."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from stages.models.systems import SYSTEMS
from stages.training.fit import Step
from tests.encoders.test_image import saved as saved_image_encoder
from tests.encoders.test_text import saved as saved_text_encoder
from tests.models import test_sicsrec
from tests.models.test_systems import TRAINED, batches, build
from tests.parallel.pretend_card import OnCard, never_waiting, pretend_card

STAGES = ("sft", "embed", "pretrain", "posttrain", "evaluate", "baseline")
SICSREC = {
    "as the default": {},
    "content first": {"frozen": ["content_embedding", "content_encoder"]},
    "content alone": {"modalities": ["text", "image"]},
    "without l2norm, with sampled negatives": {"without": ["l2norm"], "loss": {"negatives": 16}},
}


@contextmanager
def on_card() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, pretend_card() as card:
        for name in STAGES:
            patch.setattr(importlib.import_module(f"stages.{name}"), "choose_device", lambda device: card)
        yield


@contextmanager
def in_bfloat16() -> Iterator[None]:
    """As on a card that has it; there is no such CPU in `fit`."""
    AcceleratorState._reset_state(True)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for module in ("training.fit", "parallel.device"):
                patch.setattr(f"stages.{module}.has_bfloat16", lambda device: True)
            yield
    finally:
        AcceleratorState._reset_state(True)


@contextmanager
def on_card_without_waiting() -> Iterator[None]:
    """Forward and backward pass of every training step ask the card nothing."""
    forward, backward = Step.forward, Accelerator.backward

    def asking_nothing(function):
        def call(*arguments):
            with never_waiting():
                return function(*arguments)

        return call

    with pytest.MonkeyPatch.context() as patch, on_card():
        patch.setattr(Step, "forward", asking_nothing(forward))
        patch.setattr(Accelerator, "backward", asking_nothing(backward))
        yield


def ranked(name: str) -> bool:
    """Whether every user's test item has a rank."""
    return bool(pl.read_parquet(f"artifacts/ranks/{name}.parquet")["rank"].is_between(1, 40).all())


@pytest.mark.parametrize("card", [on_card, in_bfloat16])
def test_the_encoders_are_tuned_and_used(after, card):
    workspace = after("pairs")
    with card():
        workspace.run("sft", "embed")
    assert len(pl.read_parquet("artifacts/embeddings.parquet")) == 40


@pytest.mark.parametrize("train", ["last_block", "all"])
@pytest.mark.parametrize(
    ("text", "image"),
    [("bert", "vit_tiny_patch16_224"), ("roberta", "swin_tiny_patch4_window7_224"), ("t5", "resnet10t")],
)
def test_pretrained_encoders_are_tuned_and_used(after, text, image, train):
    workspace = after("pairs")
    text_encoder, image_encoder = saved_text_encoder(Path("text"), text), saved_image_encoder(Path("image"), image)
    workspace.set_params(text_encoder=text_encoder, image_encoder=image_encoder, sft={"train": train, "epochs": 1})
    # with a whole text model transformers asks once a step whether anything is padding
    with on_card_without_waiting() if train == "last_block" else on_card():
        workspace.run("sft", "embed")
    assert len(pl.read_parquet("artifacts/embeddings.parquet")) == 40


@pytest.mark.parametrize("card", [on_card_without_waiting, in_bfloat16])
@pytest.mark.parametrize("changes", SICSREC.values(), ids=SICSREC)
def test_both_steps_train_and_are_ranked(after, changes, card):
    workspace = after("embed")
    workspace.set_params(**changes)
    with card():
        workspace.run("pretrain", "posttrain", "evaluate")
    assert ranked("sicsrec")


@pytest.mark.parametrize("card", [on_card_without_waiting, in_bfloat16])
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_other_system_trains_and_is_ranked(after, name, card):
    workspace = after("embed")
    workspace.set_params(baseline={"epochs": 1, "batch_positions": 256})
    with card():
        workspace.run_baseline(name)
    assert ranked(name)


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
    return {name: tensor.inner if isinstance(tensor, OnCard) else tensor for name, tensor in found.items()}


@pytest.mark.parametrize("name", ["sicsrec", *TRAINED])
def test_all_positions_on_a_card_give_the_loss_of_those_that_have_a_target(name):
    """There nothing is picked out, see stages/parallel/static_shapes.py."""
    expected = loss_and_gradients(*model_and_batch(name))
    with pretend_card() as card:
        model, batch = model_and_batch(name)
        found = loss_and_gradients(
            model.to(card), tuple(part.to(card) if isinstance(part, torch.Tensor) else part for part in batch)
        )
    torch.testing.assert_close(found, expected)
