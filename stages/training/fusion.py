"""Scores of several trained systems added, each standardised by user; validation chooses the weights (`fuse`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from torch import Tensor

from stages.data.histories import Histories
from stages.errors import InputError
from stages.models.recommender import Recommender
from stages.models.sasrec import Sasrec, SasrecConfig
from stages.models.sicsrec import Sicsrec, SicsrecConfig
from stages.models.systems import SYSTEMS, Scheme
from stages.parallel import distributed
from stages.params import FILTERED
from stages.training.checkpoints import load_model, load_weights, read_config
from stages.training.hit_and_ndcg import hits_and_ndcgs
from stages.training.next_item import TrainingData
from stages.training.ranking import RankingModel, rank_targets, score_users, scores_of, viewed_items

SHARES = tuple(twentieths / 20 for twentieths in range(21))  # of one system, tried in turn

Weights = tuple[float, ...]  # one for each system, 0 or more, with sum 1
Measure = Callable[[list[Weights]], list[float]]  # the validation metric of each of several weights


def model_path(name: str) -> Path:
    """The file of a trained system."""
    folder = Path("artifacts/baselines" if name in SYSTEMS else "artifacts")
    return folder / f"{name}.safetensors"


def refuse_skipped(systems: Sequence[str]) -> None:
    """Raise InputError when one of the systems was skipped (`stages.baseline`): its file holds no model."""
    for name in systems:
        with safe_open(path := model_path(name), framework="pt") as file:
            if not file.metadata():
                raise InputError(f"{path} holds no model, as {name} was skipped: leave it out")


@dataclass(frozen=True)
class RootsOf:
    """A system that counts, scored by the square roots of its scores, which rank items the same.

    Counts have a long tail: of a user's standardised counts a few are far larger than any score of a trained system. On
    Bili_Food (seed 2024) validation gives the counts no weight, and their roots raise the sum from .1635 to .1644.
    """

    model: Recommender

    def last_hidden(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """The model's state after each row's last item."""
        return self.model.last_hidden(items)

    def item_matrix(self) -> Float[Tensor, "N D"]:
        """The model's vectors of items."""
        return self.model.item_matrix()

    def scores(self, hidden: Float[Tensor, "B D"], items: Float[Tensor, "N D"]) -> Float[Tensor, "B N"]:
        """Square roots of the model's scores."""
        return scores_of(self.model, hidden, items).sqrt()


def load_for_fusion(name: str, device: torch.device) -> RankingModel:
    """A trained system, ready to be added: one that counts is scored by square roots (RootsOf)."""
    model = load_system(name).to(device)
    return RootsOf(model) if name in SYSTEMS and SYSTEMS[name].scheme is Scheme.COUNTED else model


def load_system(name: str) -> Recommender:
    """A trained system in evaluation mode: `sicsrec`, `id_encoder` or another one of Table 4 that was trained."""
    path = model_path(name)
    if name == "sicsrec":
        return load_model(path, Sicsrec, SicsrecConfig)
    if name == "id_encoder":
        return load_model(path, Sasrec, SasrecConfig)
    model = SYSTEMS[name].restore(read_config(path))
    load_weights(path, model)
    return model.eval()


def standardised(scores: Float[Tensor, "P N"]) -> Float[Tensor, "P N"]:
    """Scores with mean 0 and standard deviation 1 over the items of each row; equal scores stay equal."""
    centred = scores - scores.mean(dim=1, keepdim=True)
    deviation = centred.square().mean(dim=1, keepdim=True).sqrt()
    return centred / torch.where(deviation > 0, deviation, 1.0)


def weighted_sum(parts: list[Float[Tensor, "P N"]], weights: Weights) -> Float[Tensor, "P N"]:
    """The scores of the systems, each multiplied by its weight, added."""
    total = parts[0] * weights[0]
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        total.add_(part, alpha=weight)
    return total


class SumOfScores:
    """A model whose scores are those of several models, standardised by user and added."""

    def __init__(self, models: Sequence[RankingModel], weights: Weights) -> None:
        self.models, self.weights = models, weights
        self.matrices = [model.item_matrix() for model in models]
        one = torch.ones(1, 1, dtype=torch.long, device=self.matrices[0].device)
        self.widths = [model.last_hidden(one).shape[1] for model in models]

    def last_hidden(self, items: Int[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """The states of all models, beside each other."""
        return torch.cat([model.last_hidden(items) for model in self.models], dim=1)

    def item_matrix(self) -> Float[Tensor, "N D"]:
        """Zeros that take no memory: only their number counts, as each model scores by its own vectors."""
        return self.matrices[0].new_zeros(()).expand(self.matrices[0].shape[-2], sum(self.widths))

    def scores(self, hidden: Float[Tensor, "B D"], items: Float[Tensor, "N D"]) -> Float[Tensor, "B N"]:
        """The weighted sum. items: of `item_matrix`, whole, because a user's mean is over all items."""
        if len(items) != self.matrices[0].shape[-2]:
            raise ValueError("standardised scores are of all items at once")
        states = hidden.split(self.widths, dim=1)
        parts = [standardised(scores_of(*each)) for each in zip(self.models, states, self.matrices, strict=True)]
        return weighted_sum(parts, self.weights)


@torch.no_grad()
def fused_ranks(
    models: Sequence[RankingModel],
    tried: list[Weights],
    histories: Histories,
    targets: Int[np.ndarray, " users"],
    *,
    max_length: int,
    device: torch.device,
) -> Int[np.ndarray, "tried protocols users"]:
    """Ranks of all users' targets by the sum of the models' standardised scores, for each of the weights in `tried`.

    protocols: viewed items kept, and filtered out; see `rank_users`, also for the other arguments. At any time the
    scores of one block of users are in memory.
    """
    ranks = torch.zeros(len(tried), 2, len(targets), dtype=torch.int64, device=device)
    streams = [score_users(model, histories, targets, max_length=max_length, device=device) for model in models]
    for blocks in zip(*streams, strict=True):  # all have the same users in the same blocks
        users, _, wanted = blocks[0]
        parts, rows = [standardised(block.scores) for block in blocks], torch.from_numpy(users).to(device)
        viewed = list(viewed_items(histories, users, device))
        for weights, of_weights in zip(tried, ranks, strict=True):
            scores = weighted_sum(parts, weights)
            for part, items in viewed:
                of_weights[:, rows[part]] = torch.stack(rank_targets(scores[part], wanted[part], items))
    return distributed.all_reduce_sum(ranks).cpu().numpy()


def with_share(weights: Weights, system: int, share: float) -> Weights:
    """The weights with another share for one system; the others keep their proportions, or are equal if all are 0."""
    others = np.array(weights)
    others[system] = 0
    if not others.any():
        others[:] = 1
        others[system] = 0
    changed = others / others.sum() * (1 - share)
    changed[system] = share
    return tuple(round(float(weight), 4) for weight in changed)


def search_weights(measure: Measure, systems: int) -> tuple[Weights, dict[Weights, float]]:
    """The best weights, and the value of each that was tried.

    Equal weights and each system alone are tried first. Then, from the best so far, each system's share in turn goes
    through SHARES until no system's share improves the value; for two systems this is the whole grid. Of weights with
    equal values the first is taken.
    """
    tried: dict[Weights, float] = {}

    def best_after(candidates: list[Weights]) -> Weights:
        if new := [weights for weights in dict.fromkeys(candidates) if weights not in tried]:
            tried.update(zip(new, measure(new), strict=True))
        return max(tried, key=tried.__getitem__)

    equal = (round(1 / systems, 4),) * systems
    best = best_after([equal, *(with_share(equal, system, 1.0) for system in range(systems))])
    system, without_gain = 0, 0
    while without_gain < systems:
        found = best_after([with_share(best, system, share) for share in SHARES])
        without_gain = without_gain + 1 if found == best else 0
        best, system = found, (system + 1) % systems
    return best, tried


def choose_weights(
    models: Sequence[RankingModel], data: TrainingData, *, monitor: str, max_length: int, device: torch.device
) -> tuple[Weights, dict[Weights, float]]:
    """The weights with the best validation `monitor`, and the `monitor` of each that was tried."""

    def measure(candidates: list[Weights]) -> list[float]:
        ranks = fused_ranks(models, candidates, data.before_valid, data.valid, max_length=max_length, device=device)
        of_protocol = ranks[:, int(monitor.startswith(FILTERED))]
        return [float(hits_and_ndcgs(r)[monitor.removeprefix(FILTERED)].mean()) for r in of_protocol]

    return search_weights(measure, len(models))
