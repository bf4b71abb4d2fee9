import pytest
import torch

from stages.models.distillation import Student
from stages.models.sicsrec import Sicsrec
from tests.models.test_sicsrec import CONFIG, DIM, HISTORIES, ITEMS, TARGETS, pretrained

OTHERS = torch.tensor([[4, 2], [6, 0]])


class Constant:
    """The same probabilities after any history, with a gradient that must not be used."""

    def __init__(self) -> None:
        self.logits = torch.linspace(-2, 2, ITEMS).requires_grad_()

    def probabilities(self, histories):
        return self.logits.softmax(dim=0).expand(len(histories), -1)


def student(weight: float = 3.0) -> Student:
    torch.manual_seed(0)
    model = Student(CONFIG, pretrained(), Constant(), weight)
    model.load_content_vectors({name: torch.randn(ITEMS, width) for name, width in CONFIG.widths.items()})
    return model.eval()


def test_the_loss_is_that_of_sicsrec_and_the_cross_entropy_to_the_teacher_s_probabilities():
    model = student()
    terms, plain = model.loss(HISTORIES, TARGETS, OTHERS), Sicsrec.loss(model, HISTORIES, TARGETS)
    total = 0.0
    for history in ([4, 2], [6]):
        state, items = model.last_hidden(torch.tensor([history]))[0], model.item_matrix()
        log_probabilities = [float(state @ items[item]) / CONFIG.tau for item in range(ITEMS)]
        normaliser = torch.tensor(log_probabilities).logsumexp(0)
        wanted = torch.linspace(-2, 2, ITEMS).softmax(0)
        total -= sum(float(wanted[item]) * float(log_probabilities[item] - normaliser) for item in range(ITEMS)) / 2
    assert float(terms["distillation"].detach()) == pytest.approx(total, rel=1e-5)
    assert float(terms["loss"].detach()) == pytest.approx(float(plain["loss"].detach()) + 3 * total, rel=1e-5)
    assert float(terms["ce"].detach()) == float(plain["ce"].detach())


def test_the_student_learns_and_the_teacher_does_not():
    model = student()
    model.loss(HISTORIES, TARGETS, OTHERS)["distillation"].backward()
    assert model.teacher.logits.grad is None
    assert model.item_embedding.weight.grad[1:].abs().sum(dim=1).gt(0).all()  # every item is in the softmax
    assert model.projection.weight.grad.shape == (DIM, 3 * DIM)


def test_the_trained_model_is_an_ordinary_sicsrec_with_the_same_scores():
    model = student()
    with torch.no_grad():
        model.projection.weight.add_(1)
    trained = model.without_teacher()
    assert type(trained) is Sicsrec
    assert not trained.training
    expected = model.last_hidden(HISTORIES) @ model.item_matrix().T
    assert torch.equal(trained.last_hidden(HISTORIES) @ trained.item_matrix().T, expected)
