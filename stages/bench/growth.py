"""How cost grows with the data: `python -m stages.bench.growth`, a minute on two cores.

Seconds of training (an epoch of the ID encoder), ranking (every user's item among all items), splitting and embedding
(titles) on synthetic data of three sizes each: more interactions of as many more users, more items, and longer
histories of the same users. Writes `metrics/bench_growth.json` and the figure `metrics/bench_growth.png`.
Embedding depends on the number of items alone.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import torch
from torch.utils.benchmark import Timer

from stages.bench.epoch_sample import sample_epoch, synthetic_histories, training_step
from stages.bench.machine import machine
from stages.bench.training import CPU, new_sasrec
from stages.data.histories import Histories
from stages.data.leave_one_out import split_leave_one_out
from stages.encoders.content_encoder import ItemInputs
from stages.encoders.embedding import embed_items
from stages.encoders.text import tiny_text_encoder
from stages.errors import run_stage
from stages.files import write_json
from stages.parallel.device import choose_device
from stages.params import Params, load_params
from stages.pictures.figure import new_figure
from stages.training.ranking import rank_users

JSON, FIGURE = Path("metrics/bench_growth.json"), Path("metrics/bench_growth.png")
BATCHES = 8  # trained per size; the rest of the epoch is extrapolated
MINIMUM = 0.3  # seconds for which a call is repeated


@dataclass(frozen=True)
class Size:
    """A synthetic log. length: mean number of items in a history."""

    interactions: int
    items: int
    length: int


SIZES = {
    "interactions": [Size(n, items=2_000, length=6) for n in (6_000, 60_000, 600_000)],
    "items": [Size(30_000, items=n, length=6) for n in (1_000, 6_000, 36_000)],
    "history length": [Size(1_000 * n, items=2_000, length=n) for n in (8, 32, 128)],
}
Seconds = dict[str, dict[str, dict[int, float]]]  # {what grows: {stage: {its size: seconds}}}


def seconds(call: Callable[[], object]) -> float:
    """Median duration of a call, repeated for MINIMUM seconds."""
    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=MINIMUM).median


def training_seconds(log: Histories, size: Size, params: Params) -> float:
    """An epoch of the ID encoder, extrapolated from BATCHES batches."""
    p = params.pretrain
    step = training_step(new_sasrec(params, size.items), p.learning_rate)
    epoch = sample_epoch(
        log, max_length=params.sequence.max_length, batch_positions=p.batch_positions, seed=0, count=BATCHES
    )
    step(epoch.sample[0])  # warm-up: the first step is slower
    trained = seconds(lambda: [step(batch) for batch in epoch.sample])
    return epoch.seconds_per_interaction(trained) * epoch.interactions


def ranking_seconds(log: Histories, size: Size, params: Params) -> float:
    """Ranking one item of each user in both protocols."""
    model, users = new_sasrec(params, size.items).eval(), len(log.lengths)
    targets = np.random.default_rng(0).integers(1, size.items + 1, users)
    return seconds(lambda: rank_users(model, log, targets, max_length=params.sequence.max_length, device=CPU))


def split_seconds(log: Histories, size: Size, params: Params) -> float:
    """Leave-one-out split of the log."""
    raw = pl.int_range(1, size.items + 1, eager=True).cast(pl.String)
    items = pl.DataFrame({"raw_id": raw, "title_zh": raw, "title_en": raw})
    users = np.repeat(np.arange(len(log.lengths)), log.lengths)
    pairs = pl.DataFrame(
        {"raw_user": pl.Series(users).cast(pl.String), "raw_item": pl.Series(log.values).cast(pl.String)}
    ).with_columns(timestamp=pl.int_range(pl.len(), dtype=pl.Int64))

    def split() -> None:
        with TemporaryDirectory() as folder:
            split_leave_one_out(
                pairs.lazy(), items, set(), Path(folder), min_interactions=params.split.min_interactions
            )

    return seconds(split)


def embedding_seconds(log: Histories, size: Size, params: Params) -> float:
    """Embedding one title per item with the tiny text encoder."""
    titles = [f"title {number} of {'many ' * (number % 12)}words" for number in range(size.items)]
    encoder = tiny_text_encoder(titles, "cls", params.encoders.max_tokens)
    usable = torch.ones(len(titles), dtype=torch.bool)
    return seconds(
        lambda: embed_items(encoder, ItemInputs(encoder.prepare(titles), usable), params.encoders.batch_size, CPU)
    )


STAGES = {
    "training": training_seconds, "ranking": ranking_seconds, "split": split_seconds, "embed": embedding_seconds,
}  # fmt: skip


def grown(axis: str, size: Size) -> int:
    """What of the size this axis shows."""
    return {"interactions": size.interactions, "items": size.items, "history length": size.length}[axis]


def measure(params: Params, sizes: dict[str, list[Size]]) -> Seconds:
    """Seconds of each stage for each size. The model reads whole histories."""
    longest = max(size.length for row in sizes.values() for size in row) * 2
    params = params.model_copy(update={"sequence": params.sequence.model_copy(update={"max_length": longest})})
    result: Seconds = {}
    for axis, row in sizes.items():
        logs = [synthetic_histories(s.interactions, params.seed, items=s.items, mean_length=s.length) for s in row]
        stages = STAGES if axis == "items" else {name: call for name, call in STAGES.items() if name != "embed"}
        result[axis] = {
            name: {grown(axis, size): call(log, size, params) for log, size in zip(logs, row, strict=True)}
            for name, call in stages.items()
        }
    return result


def exponent(points: dict[int, float]) -> float:
    """Slope between the last two points in double logarithms: 1 is proportional growth, 0 is none."""
    (before, less), (last, more) = sorted(points.items())[-2:]
    return math.log(more / less) / math.log(last / before)


def draw(measured: Seconds, path: Path) -> None:
    """One panel for what grows, a line for each stage, and from its first point on the line of proportional growth."""
    with new_figure(path, 15, 5) as figure:
        figure.suptitle("Cost by size of the data; dotted: proportional growth from the smallest size")
        for column, (axis, stages) in enumerate(measured.items(), start=1):
            axes = figure.add_subplot(1, len(measured), column)
            sizes = sorted({size for points in stages.values() for size in points})
            for name, points in stages.items():
                times = list(points.values())
                label = f"{name}: size to the {exponent(points):.2f}"
                (line,) = axes.plot(sizes, times, marker="o", label=label)
                proportional = [times[0] * size / sizes[0] for size in sizes]
                axes.plot(sizes, proportional, linestyle=":", color=line.get_color(), linewidth=1)
            axes.set(xscale="log", yscale="log", xlabel=axis, ylabel="seconds")
            axes.set_xticks(sizes, labels=[f"{size:,}" for size in sizes])
            axes.set_xticks([], minor=True)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # the default is mathematics, drawn as text
            axes.legend()


def main() -> None:
    params = load_params()
    torch.set_num_threads(os.cpu_count() or 1)
    choose_device("cpu")
    measured = measure(params, SIZES)
    draw(measured, FIGURE)
    result: dict[str, Any] = {"machine": machine(CPU), "seconds": measured}
    result["exponent"] = {
        axis: {name: exponent(points) for name, points in stages.items()} for axis, stages in measured.items()
    }
    write_json(JSON, result)
    print(JSON.read_text())


if __name__ == "__main__":
    run_stage(main)
