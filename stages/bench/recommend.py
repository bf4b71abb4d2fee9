"""Speed of recommending to many users: `python -m stages.bench.recommend`, a minute on two cores.

An untrained SICSRec with random content vectors recommends to synthetic users (weights do not change its speed), with
all threads. Writes `metrics/bench_recommend.json`: users a second; the user tower's share of the time; the rest of the
time as a multiple of that of the scores' matrix product and `torch.topk` alone; the time of `torch.topk` as a multiple
of that of the selection used here. Also the recall of the index of `export`, and its users a second beside those of
exact scores.
"""

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import torch
from torch import Tensor

from stages.bench.epoch_sample import synthetic_histories
from stages.bench.machine import machine
from stages.bench.training import CPU, new_sicsrec, seconds
from stages.data.histories import history_batches
from stages.errors import run_stage
from stages.files import write_json
from stages.models.serving import folded_sicsrec
from stages.parallel.device import choose_device
from stages.params import Params, load_params
from stages.serving.index import INDEX, build_index, load_index, recall
from stages.serving.recommendations import USERS_PER_BATCH, rank_items, run_batches
from stages.serving.requests import Requests
from stages.serving.trained import Trained
from stages.training.recommending import SCORES_PER_CPU_BLOCK, highest

RESULT = Path("metrics/bench_recommend.json")
TOP = 100
CONTENT_WIDTH = 384  # of all-MiniLM-L6-v2
MEAN_LENGTH = 12
ROUNDS = 3
CLUSTERS, SPREAD = 500, 0.5  # of the vectors in the index: distance within a cluster beside that between clusters


@dataclass(frozen=True)
class Size:
    """Synthetic users and items, and the width of the model."""

    users: int
    items: int
    dim: int


SIZES = [Size(20_000, 2_000, 64), Size(10_000, 2_000, 256), Size(1_536, 1_000_000, 64)]
INDEXED = Size(1_000, 50_000, 64)


def median_seconds(call: Callable[[], object]) -> float:
    """Median duration of ROUNDS calls."""
    return statistics.median(seconds(call) for _ in range(ROUNDS))


def untrained(params: Params, size: Size) -> Trained:
    """An untrained SICSRec, ready to serve."""
    vectors = torch.randn(size.items, CONTENT_WIDTH, generator=torch.Generator().manual_seed(params.seed))
    model = folded_sicsrec(new_sicsrec(params.model_copy(update={"dim": size.dim}), size.items, {"text": vectors}))
    items = pl.select(raw_id=pl.format("v{}", pl.int_range(1, size.items + 1)))
    with torch.inference_mode():
        return Trained(model, model.item_matrix().contiguous(), items)


def measure_recommending(params: Params, size: Size) -> dict[str, float]:
    """Users a second, the user tower's share of the time, and the rest as a multiple of product and top-k."""
    trained = untrained(params, size)
    histories = synthetic_histories(size.users * MEAN_LENGTH, params.seed, items=size.items, mean_length=MEAN_LENGTH)
    requests = Requests(pl.int_range(len(histories.lengths), eager=True).cast(pl.String), histories)
    states = torch.randn(USERS_PER_BATCH, size.dim)

    def read(_: np.ndarray, items: Tensor) -> None:
        trained.model.last_hidden(items)

    def score(users: np.ndarray, _: Tensor) -> None:
        (states[: len(users)] @ trained.matrix.T).topk(TOP)

    def run(batch: Callable[[np.ndarray, Tensor], None]) -> float:
        def whole() -> None:
            batches = history_batches(histories, max_length=trained.max_length, batch_users=USERS_PER_BATCH)
            run_batches(batch, batches, workers=torch.get_num_threads())

        return median_seconds(whole)

    total = median_seconds(lambda: rank_items(trained, requests, top=TOP, keep_viewed=False))
    reading = run(read)
    scores = states @ trained.matrix[: SCORES_PER_CPU_BLOCK // USERS_PER_BATCH].T  # of one block of items

    def selection_seconds(select: Callable[[Tensor, int], object]) -> float:
        def batch(users: np.ndarray, _: Tensor) -> None:
            select(scores[: len(users)], TOP)

        return run(batch)

    return {
        "users": len(requests.users),
        "items": size.items,
        "dim": size.dim,
        "users_per_second": len(requests.users) / total,
        "user_tower_share": reading / total,
        "rest_vs_product_and_topk": (total - reading) / run(score),
        "topk_vs_selection": selection_seconds(torch.topk) / selection_seconds(highest),
    }


def clustered_vectors(count: int, dim: int, seed: int) -> np.ndarray:
    """Random unit vectors around CLUSTERS centres, as those of items of a kind are: (count, dim) float32.

    The same seed and width give the same centres.
    """
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((CLUSTERS, dim))
    vectors = centres[rng.integers(0, CLUSTERS, count)] + SPREAD * rng.standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def measure_index(size: Size, seed: int) -> dict[str, float]:
    """Seconds to build the index, its recall of the TOP best items, and searches a second beside exact scores."""
    vectors, states = (clustered_vectors(count, size.dim, seed) for count in (size.items, size.users))
    items, asked = torch.from_numpy(vectors), torch.from_numpy(states)
    with TemporaryDirectory() as folder:
        path = Path(folder) / INDEX
        building = seconds(lambda: build_index(path, vectors))
        index = load_index(path, size.dim, top=TOP)
        return {
            "items": size.items,
            "dim": size.dim,
            "build_seconds": building,
            "recall_at_100": recall(path, vectors, states, top=TOP),
            "users_per_second": size.users / median_seconds(lambda: index.search(states, TOP)),
            "exact_users_per_second": size.users / median_seconds(lambda: (asked @ items.T).topk(TOP)),
        }


def main() -> None:
    params = load_params()
    torch.set_num_threads(os.cpu_count() or 1)
    choose_device("cpu")
    write_json(
        RESULT,
        {
            "machine": machine(CPU),
            "recommend": [measure_recommending(params, size) for size in SIZES],
            "index": measure_index(INDEXED, params.seed),
        },
    )
    print(RESULT.read_text())


if __name__ == "__main__":
    run_stage(main)
