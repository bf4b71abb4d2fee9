from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.data.histories import (
    Histories,
    prefix_windows,
    training_batches,
    training_batches_with_users,
    training_windows,
)
from stages.models.baselines.material import Material
from stages.models.systems import SYSTEMS, Scheme
from stages.training.baselines import latest_inputs

USERS, ITEMS = 50, 30
CAUSAL = [name for name, system in SYSTEMS.items() if system.scheme in (Scheme.POSITIONS, Scheme.POSITIONS_WITH_USERS)]
CAUSAL.remove("bert4rec")
TRAINED = [name for name, system in SYSTEMS.items() if system.scheme is not Scheme.COUNTED]


def histories() -> Histories:
    rng = np.random.default_rng(0)
    lists = [1 + rng.permutation(ITEMS)[:n] for n in rng.integers(3, 7, size=USERS)]
    return Histories(np.concatenate(lists), np.cumsum([0, *map(len, lists)]))


def material(**changes: object) -> Material:
    packed = histories()
    sizes = {"items": ITEMS, "layers": 1, "heads": 2, "max_length": 10, "seed": 0}
    return Material(
        values=packed.values, offsets=packed.offsets, inputs=lambda: latest_inputs(packed, 10), **sizes | changes
    )


def build(name: str, dropout: float = 0.0) -> torch.nn.Module:
    rng = np.random.default_rng(1)
    vectors = {m: rng.normal(size=(ITEMS, w)).astype(np.float32) for m, w in (("text", 12), ("image", 10))}
    torch.manual_seed(0)
    return SYSTEMS[name].build(
        material(
            dim=32, dropout=dropout, vectors={m: vectors[m] for m in SYSTEMS[name].content}, validate=lambda model: 0.0
        )
    )


def batches(name: str, epoch: int, positions: int = 64):
    packed, rng = histories(), np.random.default_rng(epoch)
    scheme = SYSTEMS[name].scheme
    if scheme is Scheme.PREFIXES:
        return training_batches(packed, prefix_windows(packed, 10), positions, rng)
    make = training_batches_with_users if scheme is Scheme.POSITIONS_WITH_USERS else training_batches
    return make(packed, training_windows(packed, 10), positions, rng)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_later_item_does_not_change_earlier_outputs(name):
    model = build(name).eval()
    a, b = torch.tensor([[3, 1, 7, 9]]), torch.tensor([[3, 1, 8, 10]])
    assert torch.equal(model.hidden(a)[:, :2], model.hidden(b)[:, :2])
    assert not torch.equal(model.hidden(a)[:, 2:], model.hidden(b)[:, 2:])


@pytest.mark.parametrize("name", CAUSAL)
def test_the_last_state_alone_is_the_last_of_all_states(name):
    model, items = build(name).eval(), torch.tensor([[3, 1, 7, 9]])
    torch.testing.assert_close(model.last_hidden(items), model.hidden(items)[:, -1])


@pytest.mark.parametrize("name", SYSTEMS)
def test_padding_does_not_change_a_state(name):
    model = build(name).eval()
    if hasattr(model, "start_epoch"):
        model.start_epoch(0)
    plain, padded = (model.last_hidden(torch.tensor([row])) for row in ([3, 1], [3, 1, 0, 0]))
    torch.testing.assert_close(plain, padded)


@pytest.mark.parametrize("name", TRAINED)
def test_training_without_dropout_overfits_fifty_users(name):
    model = build(name)
    for module in model.modules():
        for rate in {"dropout", "rate"} & vars(module).keys():
            setattr(module, rate, 0.0)
    if name.startswith("llmesr"):
        model.config = replace(model.config, dropout=0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for epoch in range(30):
        if hasattr(model, "start_epoch"):
            model.start_epoch(epoch)
        model.train()
        (batch,) = batches(name, epoch, positions=1000)
        loss = model.loss(*batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-4:]) < 0.75 * np.mean(losses[:4])


@pytest.mark.parametrize("name", TRAINED)
def test_every_parameter_gets_a_gradient(name):
    model = build(name)
    if hasattr(model, "start_epoch"):
        model.start_epoch(0)
    for batch in batches(name, 0):
        model.loss(*batch)["loss"].backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert missing == []


def test_itemknn_takes_the_decay_with_the_best_validation():
    best = material(dim=8, dropout=0.0, vectors={}, validate=lambda model: -abs(model.config.decay - 0.6))
    assert SYSTEMS["itemknn"].build(best).config.decay == 0.6
