"""The next-item loss of every system: cross-entropy over all items, or over a sample of a large catalogue."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.parallel import distributed

Candidates = Callable[[Tensor | None], Tensor]  # items (n,), or None for all → what states are scored against (n, D)


class Sampler(nn.Module):
    """Negatives that a whole batch shares: half of them uniform, half as often as items occur in training."""

    cumulative: Tensor
    log_expected: Tensor

    def __init__(self, counts: Int[Tensor, " N"], size: int) -> None:
        """counts: how often items 1…N occur in training. size: number of negatives per batch."""
        super().__init__()
        self.items, self.size, self.total = len(counts), size, int(counts.sum())
        share = (1 / self.items + counts.double() / self.total) / 2
        self.register_buffer("cumulative", counts.cumsum(0), persistent=False)
        self.register_buffer("log_expected", (size * share).log().float(), persistent=False)

    def draw(self) -> tuple[Int[Tensor, " size"], Float[Tensor, " size"]]:
        """Items, with replacement, and the logarithm of how often each is expected in a draw."""
        device, frequent = self.cumulative.device, self.size // 2
        uniform = torch.randint(self.items, (self.size - frequent,), device=device)
        occurrences = torch.randint(self.total, (frequent,), device=device)
        drawn = torch.cat([uniform, torch.searchsorted(self.cumulative, occurrences, right=True)])
        return drawn + 1, self.log_expected[drawn]


def negative_sampler(negatives: str | int, counts: Int[np.ndarray, " N"]) -> Sampler | None:
    """The sampler that `loss.negatives` asks for; None for `all`. counts: see Sampler."""
    return None if negatives == "all" else Sampler(torch.from_numpy(counts), int(negatives))


def next_item_loss(
    states: Float[Tensor, "P D"], targets: Int[Tensor, " P"], candidates: Candidates, sampler: Sampler | None
) -> Float[Tensor, ""]:
    """Cross-entropy of inner products (eq. 17), the mean over the targets of all ranks. targets: 0 = none.

    With a sampler it is over each target and the sampled items, whose scores are reduced by log Q (Bengio & Senécal
    2008): their sum of exponentials then estimates that over all items. A sampled item that equals a row's target is
    left out of that row.
    """
    if sampler is None:
        losses = F.cross_entropy(states @ candidates(None).T, targets - 1, ignore_index=-1, reduction="none")
        return distributed.mean_across_ranks(losses, targets > 0)
    negatives, log_expected = sampler.draw()
    unique, inverse, _ = distributed.unique_across_ranks(torch.cat([targets, negatives]))
    vectors = candidates(unique)
    own, others = inverse[: len(targets)], inverse[len(targets) :]
    scores = states @ vectors[others].T - log_expected
    scores = scores.masked_fill(negatives == targets[:, None], float("-inf"))
    target = (states * vectors[own]).sum(dim=-1, keepdim=True)
    losses = F.cross_entropy(torch.cat([target, scores], dim=1), torch.zeros_like(targets), reduction="none")
    return distributed.mean_across_ranks(losses, targets > 0)
