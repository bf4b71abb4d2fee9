from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.data.histories import Histories
from stages.models.content_scoring import content_scored_vectors, neighbours_of_unseen
from stages.training import content_weight
from stages.training.content_weight import WEIGHTS, score_with_content
from stages.training.next_item import TrainingData
from tests.models.test_sicsrec import CONFIG, ITEMS, build

CPU = torch.device("cpu")
USERS, LENGTH, UNSEEN = 40, 5, (4, 11)
VECTORS = {"text": torch.randn(ITEMS, 6, generator=torch.Generator().manual_seed(3))}


@pytest.fixture
def data() -> TrainingData:
    rng = np.random.default_rng(0)
    seen = [item for item in range(1, ITEMS + 1) if item not in UNSEEN]
    values = np.concatenate([seen, rng.choice(seen, USERS * LENGTH - len(seen))])
    histories = Histories(values, np.arange(USERS + 1) * LENGTH)
    return TrainingData(histories, histories, rng.integers(1, ITEMS + 1, USERS), ITEMS, (), {})


def hit_at_5(model, data, vectors, filtered: bool, without: tuple[int, ...] = ()) -> float:
    """Share of users whose validation item is among the first five, by a loop over users. without: items left out."""
    hits = 0
    for user, history in enumerate(data.histories.values.reshape(USERS, LENGTH)):
        scores = vectors @ model.last_hidden(torch.from_numpy(history)[None])[0]
        target = data.valid[user]
        if target in without:
            continue
        above = {i for i in range(1, ITEMS + 1) if scores[i - 1] >= scores[target - 1]} - {target}
        above -= set(without)
        hits += len(above - set(history.tolist()) if filtered else above) < 5
    return hits / USERS


def scored(model, data, weight: float, scale: float) -> torch.Tensor:
    seen = torch.from_numpy(data.histories.counts(ITEMS) > 0)
    neighbours = neighbours_of_unseen(model, seen, VECTORS)
    return content_scored_vectors(model, seen, neighbours, weight=weight, unseen_scale=scale)


@pytest.mark.parametrize("filtered", [False, True])
def test_auto_chooses_the_weight_with_the_best_validation_metric(data, filtered):
    model = build().eval()
    expected = {w: hit_at_5(model, data, scored(model, data, w, 0.0), filtered, without=UNSEEN) for w in WEIGHTS}
    monitor = "filtered.hit@5" if filtered else "hit@5"
    found = score_with_content(model, data, VECTORS, "auto", monitor=monitor, device=CPU)
    assert found["tried"] == pytest.approx({str(weight): value for weight, value in expected.items()})
    assert found["chosen"] == max(WEIGHTS, key=lambda weight: (expected[weight], -weight))
    assert len(set(expected.values())) > 3
    assert found["unseen_items"] == len(UNSEEN)
    assert found["validation"] == pytest.approx(hit_at_5(model, data, model.item_matrix(), filtered))


@pytest.mark.parametrize("tolerance", [-0.1, 0.0, 0.1, 0.3, 1.0])
def test_unseen_items_are_scaled_up_as_long_as_they_cost_no_more_than_the_tolerance(data, tolerance, monkeypatch):
    scales = (0.5, 1.0, 2.0, 4.0, 8.0)
    monkeypatch.setattr(content_weight, "TOLERANCE", tolerance)
    monkeypatch.setattr(content_weight, "UNSEEN_SCALES", scales)
    model = build().eval()
    hits = {scale: hit_at_5(model, data, scored(model, data, 0.3, scale), True) for scale in (0.0, *scales)}
    without_them = hit_at_5(model, data, scored(model, data, 0.3, 0.0), True, without=UNSEEN)
    allowed = [hits[scale] >= (1 - tolerance) * without_them for scale in scales]
    expected = (0.0, *scales)[(*allowed, False).index(False)]
    found = score_with_content(model, data, VECTORS, 0.3, monitor="filtered.hit@5", device=CPU)
    assert found["unseen_scale"] == expected
    assert found["validation"] == pytest.approx(hits[expected])
    assert torch.equal(model.item_matrix(), scored(model, data, 0.3, expected))


def test_a_number_is_taken_as_it_is(data):
    model = build().eval()
    found = score_with_content(model, data, VECTORS, 0.37, monitor="ndcg@10", device=CPU)
    assert (found["chosen"], list(found["tried"])) == (0.37, ["0.37"])
    assert model.config.content_weight == 0.37


def test_without_unseen_items_there_is_nothing_to_scale(data):
    whole = TrainingData(data.histories, data.before_valid, data.valid, ITEMS, (), {})
    whole.histories.values[:2] = UNSEEN
    found = score_with_content(build().eval(), whole, VECTORS, 0.3, monitor="ndcg@10", device=CPU)
    assert (found["unseen_items"], found["unseen_scale"]) == (0, 0.0)


def test_without_id_the_weight_is_one(data):
    model = build(replace(CONFIG, use_id=False)).eval()
    assert score_with_content(model, data, VECTORS, "auto", monitor="ndcg@10", device=CPU)["chosen"] == 1.0
