import numpy as np
import pytest
import torch

from stages.encoders.cached_trunk import Tuned
from stages.encoders.image import tiny_image_encoder
from stages.encoders.text import tiny_text_encoder
from stages.encoders.tuning import Alignment, pair_batches, parameter_groups
from tests.encoders.test_cached_trunk import TITLES, text_part

PAIRS = torch.tensor(
    [[i, j] for k in range(3) for i in range(4 * k + 1, 4 * k + 5) for j in range(4 * k + 1, 4 * k + 5) if i != j]
)


def alignment(tasks, usable=None):
    torch.manual_seed(0)
    text = tiny_text_encoder(TITLES, "cls", 20)
    image = tiny_image_encoder("head")
    parts = {
        "text": Tuned(text, text.prepare(TITLES), "last_block", fresh=True),
        "image": Tuned(image, {"pixels": torch.randn(12, 3, 64, 64)}, "last_block", fresh=True),
    }
    usable = torch.ones(12, dtype=torch.bool) if usable is None else usable
    text_usable = torch.ones(12, dtype=torch.bool)
    return Alignment(parts, {"text": 128, "image": 128}, tasks, 0.05, {"text": text_usable, "image": usable})


@pytest.mark.parametrize("tasks", [("t2t",), ("i2i", "t2i"), ("t2t", "i2i", "t2i")])
def test_the_loss_is_the_sum_of_the_chosen_tasks(tasks):
    terms = alignment(tasks).eval().loss(PAIRS[:8].numpy())
    assert set(terms) == {"loss", *tasks}
    torch.testing.assert_close(terms["loss"], sum(terms[task] for task in tasks))


def test_items_without_a_cover_stay_out_of_the_image_losses():
    usable = torch.ones(12, dtype=torch.bool)
    usable[0] = False
    model = alignment(("i2i", "t2i"), usable).eval()
    with_first = model.loss(PAIRS[:8].numpy())
    without = model.loss(PAIRS[:8][(PAIRS[:8] != 1).all(dim=1)].numpy())
    torch.testing.assert_close(with_first["i2i"], without["i2i"])


def test_every_trained_parameter_gets_a_gradient():
    model = alignment(("t2t", "i2i", "t2i"))
    model.loss(PAIRS.numpy())["loss"].backward()
    silent = {name for name, p in model.named_parameters() if p.grad is None}
    assert all("pooler" in name for name in silent)  # BERT's pooler does not enter the vector that we use
    assert all(p.grad.abs().max() > 0 for p in model.adapters.parameters())


def test_tuning_brings_partners_together():
    model = alignment(("t2t", "i2i", "t2i"))
    before = model.measure(model.encode_all(5), PAIRS)
    optimizer = torch.optim.Adam(parameter_groups(model, learning_rate=1e-5, new_learning_rate=1e-3))
    losses = []
    for epoch in range(15):
        model.train()
        for (pairs,) in pair_batches(PAIRS, 12, np.random.default_rng(epoch)):
            loss = model.loss(pairs)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    after = model.measure(model.encode_all(5), PAIRS)
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    for task in ("t2t", "t2i"):
        assert after[task]["mean_rank"] < before[task]["mean_rank"]


def test_pretrained_weights_and_new_ones_have_different_learning_rates(tmp_path):
    part = text_part(tmp_path, "bert")
    model = Alignment({"text": part}, {"text": 16}, ("t2t",), 0.05, {"text": torch.ones(12, dtype=torch.bool)})
    pretrained, new = parameter_groups(model, learning_rate=1e-5, new_learning_rate=1e-3)
    assert (pretrained["lr"], new["lr"]) == (1e-5, 1e-3)
    assert {id(p) for p in new["params"]} == {id(p) for p in model.adapters.parameters()}


def test_a_batch_of_one_pair_has_no_loss_and_can_be_run_backwards_with_a_frozen_trunk(tmp_path):
    part = text_part(tmp_path, "bert")
    model = Alignment({"text": part}, {"text": 16}, ("t2t",), 0.05, {"text": torch.ones(12, dtype=torch.bool)})
    terms = model.loss(PAIRS[:1].numpy())
    terms["loss"].backward()
    assert (set(terms), terms["loss"].item()) == ({"loss"}, 0.0)


def test_an_epoch_has_every_pair_once():
    seen = np.concatenate([batch for (batch,) in pair_batches(PAIRS, 7, np.random.default_rng(0))])
    assert sorted(seen.tolist()) == sorted(PAIRS.tolist())
