"""The sum of several systems' scores as the teacher of SICSRec (`distill`)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from stages.parallel import distributed
from stages.training.fusion import SumOfScores
from stages.training.next_item import TrainingData
from stages.training.ranking import score_users, scores_of

TEMPERATURES = tuple(tenths / 10 for tenths in range(1, 21))  # of standardised scores, tried in turn


@dataclass(frozen=True)
class SumAsTeacher:
    """The softmax of a sum of scores, divided by a temperature, as the probabilities of the next item.

    matrix: of `SumOfScores.item_matrix`.
    """

    total: SumOfScores
    matrix: Tensor
    temperature: float

    def probabilities(self, histories: Int[Tensor, "B L"]) -> Float[Tensor, "B N"]:
        """The probability of each item to be next after each history. histories: 0 = padding, at the right."""
        scores = scores_of(self.total, self.total.last_hidden(histories), self.matrix)
        return (scores / self.temperature).softmax(dim=1)


@torch.no_grad()
def log_loss_by_temperature(
    total: SumOfScores, data: TrainingData, *, max_length: int, device: torch.device
) -> dict[float, float]:
    """For each of TEMPERATURES, the mean of −log the probability that the sum gives to the validation items."""
    sums = torch.zeros(len(TEMPERATURES), dtype=torch.float64)
    for _, scores, targets in score_users(total, data.before_valid, data.valid, max_length=max_length, device=device):
        losses = [F.cross_entropy(scores / each, targets - 1, reduction="sum") for each in TEMPERATURES]
        sums += torch.stack(losses).cpu().double()  # MPS has no float64
    means = distributed.all_reduce_sum(sums) / len(data.valid)
    return dict(zip(TEMPERATURES, means.tolist(), strict=True))


@torch.no_grad()
def choose_teacher(
    total: SumOfScores, data: TrainingData, *, max_length: int, device: torch.device
) -> tuple[SumAsTeacher, dict[float, float]]:
    """The teacher whose temperature validation prefers, and the log loss of each temperature that was tried."""
    tried = log_loss_by_temperature(total, data, max_length=max_length, device=device)
    return SumAsTeacher(total, total.item_matrix(), min(tried, key=tried.__getitem__)), tried
