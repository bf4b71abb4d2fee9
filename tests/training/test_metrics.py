import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from stages.training.metrics import mean_metrics, mean_metrics_by_protocol, per_user_metrics


@pytest.mark.parametrize("k", [5, 10])
def test_ndcg_equals_scikit_learn_s(k):
    rng = np.random.default_rng(0)
    scores, targets = rng.normal(size=(40, 25)), rng.integers(0, 25, size=40)
    relevance = np.eye(25)[targets]
    ranks = (scores >= np.take_along_axis(scores, targets[:, None], axis=1)).sum(axis=1)
    assert mean_metrics(ranks)[f"ndcg@{k}"] == pytest.approx(ndcg_score(relevance, scores, k=k))


def test_metrics_of_hand_made_ranks():
    metrics = per_user_metrics(np.array([1, 5, 6, 10, 11]))
    assert metrics["hit@5"].tolist() == [1, 1, 0, 0, 0]
    assert metrics["hit@10"].tolist() == [1, 1, 1, 1, 0]
    assert metrics["ndcg@5"].tolist() == pytest.approx([1, 1 / np.log2(6), 0, 0, 0])
    assert metrics["ndcg@10"].tolist() == pytest.approx([1, 1 / np.log2(6), 1 / np.log2(7), 1 / np.log2(11), 0])


def test_the_metrics_of_both_protocols_stand_as_in_evaluate_json():
    metrics = mean_metrics_by_protocol(np.array([3, 11]), np.array([1, 1]))
    assert (metrics["hit@10"], metrics["filtered"]["hit@10"]) == (0.5, 1.0)
