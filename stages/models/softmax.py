"""The next-item loss of every system: cross-entropy over all items, or over a sample of a large catalogue."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.parallel import distributed

Candidates = Callable[[Tensor | None], Tensor]  # items (n,), or None for all → what states are scored against (n, D)


class Sampler(nn.Module):
    """Negatives that a whole batch shares: half of them uniform, half as often as items occur in training."""

    def __init__(self, counts: Tensor, size: int) -> None:
        """counts: (N,) int64, how often items 1…N occur in training. size: negatives a batch."""
        super().__init__()
        self.items, self.size, self.total = len(counts), size, int(counts.sum())
        share = (1 / self.items + counts.double() / self.total) / 2
        self.register_buffer("cumulative", counts.cumsum(0), persistent=False)
        self.register_buffer("log_expected", (size * share).log().float(), persistent=False)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Items, with replacement, and the logarithm of how often each is expected in a draw. → (size,), (size,)."""
        device, frequent = self.cumulative.device, self.size // 2
        uniform = torch.randint(self.items, (self.size - frequent,), device=device)
        places = torch.randint(self.total, (frequent,), device=device)
        drawn = torch.cat([uniform, torch.searchsorted(self.cumulative, places, right=True)])
        return drawn + 1, self.log_expected[drawn]


def negative_sampler(negatives: str | int, counts: np.ndarray) -> Sampler | None:
    """What `loss.negatives` asks for: none for `all`, or a sampler of so many. counts: see Sampler."""
    return None if negatives == "all" else Sampler(torch.from_numpy(counts), int(negatives))


def next_item_loss(states: Tensor, targets: Tensor, candidates: Candidates, sampler: Sampler | None) -> Tensor:
    """Cross-entropy of inner products (eq. 17), the mean over all processes' targets.

    states: (P, D), targets: (P,), 0 = none; candidates: see Candidates.
    With a sampler over each target and the sampled items, less log Q (Bengio & Senécal 2008): their sum then estimates
    that over the catalogue. A sampled item that is a row's own target is left out of that row.
    """
    if sampler is None:
        losses = F.cross_entropy(states @ candidates(None).T, targets - 1, ignore_index=-1, reduction="none")
        return distributed.mean_across_ranks(losses, targets > 0)
    negatives, log_expected = sampler.draw()
    distinct, where, _ = distributed.unique_across_ranks(torch.cat([targets, negatives]))
    vectors = candidates(distinct)
    own, others = where[: len(targets)], where[len(targets) :]
    scores = states @ vectors[others].T - log_expected
    scores = scores.masked_fill(negatives == targets[:, None], float("-inf"))
    target = (states * vectors[own]).sum(dim=-1, keepdim=True)
    losses = F.cross_entropy(torch.cat([target, scores], dim=1), torch.zeros_like(targets), reduction="none")
    return distributed.mean_across_ranks(losses, targets > 0)
