"""SICSRec that learns another recommender's probabilities of the next item beside the items themselves."""

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from stages.models.sasrec import Sasrec
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.parallel import distributed


@runtime_checkable
class Teacher(Protocol):
    """What a student learns from."""

    def probabilities(self, histories: Int[Tensor, "B L"]) -> Float[Tensor, "B N"]:
        """The probability of each item to be next after each history. histories: 0 = padding, at the right."""


class Student(Sicsrec):
    """SICSRec whose loss has one more term: the cross-entropy of its scores to a teacher's probabilities.

    The term is over other histories than those with targets. Source: Hinton et al. 2015, with the temperature at the
    teacher alone.
    """

    def __init__(self, config: SicsrecConfig, pretrained: Sasrec | None, teacher: Teacher, weight: float) -> None:
        """weight: of the term. pretrained: see Sicsrec."""
        super().__init__(config, pretrained)
        self.teacher, self.weight = teacher, weight

    def loss(  # type: ignore[override]
        self, items: Int[Tensor, "B L"], targets: Int[Tensor, "B L"], histories: Int[Tensor, "B M"]
    ) -> dict[str, Tensor]:
        """Eq. 19 and the term, under `distillation`. items, targets: see Sicsrec. histories: any, 0 = padding."""
        terms = super().loss(items, targets)
        scores = self.hidden(histories, last=True)[:, 0] @ self.candidates(None).T / self.config.tau
        with torch.no_grad():
            probabilities = self.teacher.probabilities(histories)
        losses = F.cross_entropy(scores, probabilities, reduction="none")
        terms["distillation"] = distributed.mean_across_ranks(losses)
        return terms | {"loss": terms["loss"] + self.weight * terms["distillation"]}

    def without_teacher(self) -> Sicsrec:
        """The trained model, in evaluation mode."""
        model = Sicsrec(self.config)
        model.load_state_dict(self.state_dict())
        return model.to(self.projection.weight.device).eval()
