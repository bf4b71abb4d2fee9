"""What `stages.search` tries: each system's searched params and their ranges.

`tau` is also the temperature of `sft` unless `sft.tau` is set. A trial keeps the item vectors that are there, so the
command that trains with the best values sets `sft.tau` to what they were tuned with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stages.models.systems import SYSTEMS, Scheme

if TYPE_CHECKING:
    from optuna.trial import Trial


@dataclass(frozen=True)
class Choice:
    """One of a few whole numbers. keys: the params that get it, as `dvc exp run -S` writes them."""

    keys: tuple[str, ...]
    values: tuple[int, ...]

    def including(self, value: int) -> Choice:
        """The same, with `value` among the choices."""
        return replace(self, values=tuple(sorted({*self.values, value})))

    def multiples_of(self, number: int) -> Choice:
        """The same, without the choices that `number` does not divide."""
        return replace(self, values=tuple(value for value in self.values if value % number == 0))

    def suggest(self, trial: Trial) -> int:
        """A value for this trial."""
        return int(trial.suggest_categorical(self.keys[0], self.values))


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`; log: uniform in its logarithm. keys: the params that get it."""

    keys: tuple[str, ...]
    low: float
    high: float
    log: bool = False

    def including(self, value: float) -> Range:
        """The same, wide enough for `value`."""
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    def suggest(self, trial: Trial) -> float:
        """A value for this trial, of three digits so that it can be typed."""
        return float(f"{trial.suggest_float(self.keys[0], self.low, self.high, log=self.log):.3g}")


Space = tuple[Choice | Range, ...]


def dropout(*keys: str) -> Range:
    """The range in which dropout is searched."""
    return Range(keys, 0.1, 0.6)


def learning_rate(*keys: str) -> Range:
    """The range in which learning rates are searched."""
    return Range(keys, 3e-4, 3e-3, log=True)


DIM = Choice(("dim",), (64, 128, 256))
LAYERS = Choice(("sequence.layers",), (1, 2))
RATE = learning_rate("baseline.learning_rate")

WITH_LAYERS = {"sasrec", "bert4rec", "unisrec_t", "unisrec_t_id", "vqrec"}
# Only params that a system reads: MISSRec, LLM-ESR and GRU4Rec have a fixed number of layers, as published.
SPACES: dict[str, Space] = {
    "sicsrec": (
        DIM,
        LAYERS,
        dropout("posttrain.dropout", "pretrain.dropout"),  # both steps get the same value
        learning_rate("posttrain.learning_rate", "pretrain.learning_rate"),
        Range(("alpha",), 0.1, 1.0),
        Range(("tau",), 0.02, 0.2, log=True),
        Choice(("rank",), (4, 8, 12, 16)),
    ),
    "id_encoder": (DIM, LAYERS, dropout("pretrain.dropout"), learning_rate("pretrain.learning_rate")),
} | {
    name: (DIM, *([LAYERS] if name in WITH_LAYERS else []), dropout("baseline.dropout"), RATE)
    for name, system in SYSTEMS.items()
    if system.scheme is not Scheme.COUNTED
}
