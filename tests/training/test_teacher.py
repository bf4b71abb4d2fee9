import numpy as np
import pytest
import torch

from stages.training.fusion import SumOfScores
from stages.training.teacher import TEMPERATURES, choose_teacher
from tests.training.test_fusion import CPU, LENGTH, MODELS, USERS, data  # noqa: F401 (a fixture)

WEIGHTS = (0.5, 0.2, 0.3)


def standardised(numbers: np.ndarray) -> np.ndarray:
    return (numbers - numbers.mean()) / numbers.std()


def log_probabilities(history, temperature: float) -> np.ndarray:
    total = sum(weight * standardised(model.of(history)) for model, weight in zip(MODELS, WEIGHTS, strict=True))
    return total / temperature - np.log(np.exp(total / temperature).sum())


def test_the_teacher_s_probabilities_are_the_softmax_of_the_weighted_standardised_scores(data):  # noqa: F811
    teacher, _ = choose_teacher(SumOfScores(MODELS, WEIGHTS), data, max_length=LENGTH, device=CPU)
    histories = torch.tensor([[3, 7, 2], [5, 0, 0]])
    found = teacher.probabilities(histories)
    for row, history in zip(found, ([3, 7, 2], [5]), strict=True):
        np.testing.assert_allclose(row.numpy(), np.exp(log_probabilities(history, teacher.temperature)), rtol=1e-4)


def test_the_temperature_is_the_one_at_which_validation_items_are_most_probable(data):  # noqa: F811
    teacher, tried = choose_teacher(SumOfScores(MODELS, WEIGHTS), data, max_length=LENGTH, device=CPU)
    histories = data.histories.values.reshape(USERS, LENGTH)
    users = [*zip(histories, data.valid, strict=True)]
    expected = {
        temperature: -np.mean([log_probabilities(history, temperature)[item - 1] for history, item in users])
        for temperature in TEMPERATURES
    }
    assert tried == pytest.approx(expected, rel=1e-4)
    assert teacher.temperature == min(expected, key=expected.__getitem__)
