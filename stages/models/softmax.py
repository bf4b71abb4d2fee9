"""The next-item loss of every system: cross-entropy over all items, or over a sample of a large catalogue."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from stages.models.scores import inner_products, on_plain_cpu
from stages.models.smoothing import Smoothing
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
        self.frequent = size // 2  # of the draws, as often as items occur
        expected = (size - self.frequent) / self.items + self.frequent * counts.double() / self.total
        self.register_buffer("cumulative", counts.cumsum(0), persistent=False)
        self.register_buffer("log_expected", expected.log().float(), persistent=False)

    def draw(self) -> tuple[Int[Tensor, " size"], Float[Tensor, " size"]]:
        """Items, with replacement, and the logarithm of how often each is expected in a draw."""
        device = self.cumulative.device
        uniform = torch.randint(self.items, (self.size - self.frequent,), device=device)
        occurrences = torch.randint(self.total, (self.frequent,), device=device)
        drawn = torch.cat([uniform, torch.searchsorted(self.cumulative, occurrences, right=True)])
        return drawn + 1, self.log_expected[drawn]


def negative_sampler(negatives: str | int, counts: Int[np.ndarray, " N"]) -> Sampler | None:
    """The sampler that `loss.negatives` asks for; None for `all`. counts: see Sampler."""
    return None if negatives == "all" else Sampler(torch.from_numpy(counts), int(negatives))


class _CrossEntropyOverAll(torch.autograd.Function):
    """Cross-entropy of the inner products of states and all items.

    Holds one matrix of all scores, where torch's own operations hold three: the gradients of both factors are products
    with exp(score), scaled by row.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, items: Tensor, answers: Tensor) -> Tensor:
        scores = inner_products(states, items)
        own, top = scores.gather(1, answers[:, None]), scores.amax(dim=1, keepdim=True)
        exponentials = scores.sub_(top).exp_()
        total = exponentials.sum(dim=1, keepdim=True)
        ctx.save_for_backward(states, items, answers, exponentials, total)
        return (total.log() + top - own)[:, 0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        states, items, answers, exponentials, total = ctx.saved_tensors
        gradient = gradient[:, None]
        scale = gradient / total
        of_states = (exponentials @ items).mul_(scale).sub_(gradient * items[answers])
        of_items = (exponentials.T @ (states * scale)).index_add_(0, answers, states * gradient, alpha=-1)
        return of_states, of_items, None


class _CrossEntropyOverSample(torch.autograd.Function):
    """Cross-entropy of each row's own score among it and the scores of items that all rows share.

    As above, it holds one matrix of scores.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, own: Tensor, items: Tensor, reduction: Tensor, excluded: tuple[Tensor, Tensor]
    ) -> Tensor:
        """states, own: (P, D). items: (n, D). reduction: (n,), of their scores. excluded: rows and columns left out."""
        scores = inner_products(states, items).sub_(reduction)
        scores[excluded] = float("-inf")
        own_scores = (states * own).sum(dim=1, keepdim=True)
        top = torch.maximum(scores.amax(dim=1, keepdim=True), own_scores)
        exponentials = scores.sub_(top).exp_()
        total = exponentials.sum(dim=1, keepdim=True) + (own_scores - top).exp()
        losses = total.log() + top - own_scores
        ctx.save_for_backward(states, own, items, exponentials, total, losses)
        return losses[:, 0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        states, own, items, exponentials, total, losses = ctx.saved_tensors
        of_own_scores = gradient[:, None] * torch.expm1(-losses)  # probability − 1
        scale = gradient[:, None] / total
        of_states = (exponentials @ items).mul_(scale).addcmul_(of_own_scores, own)
        return of_states, of_own_scores * states, exponentials.T @ (states * scale), None, None


def cross_entropy_over_all(
    states: Float[Tensor, "P D"], items: Float[Tensor, "N D"], targets: Int[Tensor, " P"]
) -> Float[Tensor, " P"]:
    """−log softmax of each row's target among all items. targets: 1…N; the value of a row with target 0 has no meaning.

    torch.nn.functional.linear_cross_entropy computes the same; on a CPU it is slower than this.
    """
    if on_plain_cpu(states):
        losses: Tensor = _CrossEntropyOverAll.apply(states, items, (targets - 1).clamp(min=0))
        return losses
    return F.cross_entropy(states @ items.T, targets - 1, ignore_index=-1, reduction="none")


def cross_entropy_over_sample(
    states: Float[Tensor, "P D"],
    own: Float[Tensor, "P D"],
    negatives: Float[Tensor, "n D"],
    log_expected: Float[Tensor, " n"],
    equal: Bool[Tensor, "P n"],
) -> Float[Tensor, " P"]:
    """−log softmax of each row's own score among it and the negatives' scores less `log_expected`.

    equal: where a negative is the row's target, and is left out.
    """
    if on_plain_cpu(states):
        excluded = equal.nonzero(as_tuple=True)
        losses: Tensor = _CrossEntropyOverSample.apply(states, own, negatives, log_expected, excluded)
        return losses
    scores = (states @ negatives.T - log_expected).masked_fill(equal, float("-inf"))
    scores = torch.cat([(states * own).sum(dim=-1, keepdim=True), scores], dim=1)
    first = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    return F.cross_entropy(scores, first, reduction="none")


def next_item_loss(
    states: Float[Tensor, "P D"],
    targets: Int[Tensor, " P"],
    candidates: Candidates,
    sampler: Sampler | None,
    smoothing: Smoothing | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of inner products (eq. 17), the mean over the targets of all ranks. targets: 0 = none.

    With a sampler it is over each target and the sampled items, whose scores are reduced by log Q (Bengio & Senécal
    2008): their sum of exponentials then estimates that over all items. A sampled item that equals a row's target is
    left out of that row.
    """
    near = smoothing.nearest(targets) if smoothing else targets.new_empty(len(targets), 0)
    if sampler is None:
        vectors = candidates(None)
        losses = cross_entropy_over_all(states, vectors, targets)
        if smoothing:
            own = (targets - 1).clamp(min=0)
            losses = losses + smoothing.penalty(states, targets, vectors, own=own, near=near - 1)
        return distributed.mean_across_ranks(losses, targets > 0)
    negatives, log_expected = sampler.draw()
    unique, inverse, _ = distributed.unique_across_ranks(torch.cat([targets, negatives, near.flatten()]))
    vectors = candidates(unique)
    own, others, near_index = inverse.split([len(targets), len(negatives), near.numel()])
    rows = F.embedding(own, vectors), F.embedding(others, vectors)
    losses = cross_entropy_over_sample(states, *rows, log_expected, negatives == targets[:, None])
    if smoothing:
        losses = losses + smoothing.penalty(states, targets, vectors, own=own, near=near_index.view(near.shape))
    return distributed.mean_across_ranks(losses, targets > 0)
