"""What every system of Table 4 has: a state of a history, and vectors of all items that states are scored against."""

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.models.smoothing import Smoothing
from stages.models.softmax import Sampler


class Recommender(nn.Module, ABC):
    """Base class of the systems. Scores are dot products, unless the system has `scores(hidden, item_matrix)`.

    A system that prepares something at the start of an epoch has `start_epoch(seed)`.
    """

    config: Any  # the system's dataclass

    def __init__(self) -> None:
        super().__init__()
        self.sampler: Sampler | None = None  # of negatives; None: the softmax is over all items
        self.smoothing: Smoothing | None = None  # of targets; read by SICSRec and its ID encoder

    @abstractmethod
    def last_hidden(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """State after each row's last item. items: 0 = padding, at the right."""

    @abstractmethod
    def item_matrix(self) -> Float[Tensor, "*parts N D"]:
        """What states are ranked by: row i − 1 is item i."""

    def loss(self, *batch: Any, **named: Any) -> dict[str, Tensor]:
        """The training loss of a batch under `loss`, and its terms. A system that is only counted has none."""
        raise NotImplementedError(f"{type(self).__name__} is not trained")
