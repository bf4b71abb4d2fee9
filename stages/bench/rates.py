"""How fast the device at hand trains and embeds: `python -m stages.bench.rates`, after `dvc repro`.

Positions a second of both training steps on the dataset at hand; titles and covers a second of `embed` and `sft` with
encoders of BERT-base's and Swin-base's sizes, whose random weights are as fast as trained ones; beside the rate of the
device's own matrix products, in bfloat16 where training uses that. Writes `metrics/bench_rates.json`.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor
from transformers import BertConfig, BertModel

from stages.bench import training
from stages.bench.__main__ import read_data
from stages.bench.machine import machine
from stages.bench.matmul import matmul_rate
from stages.data.histories import training_batches, training_windows
from stages.encoders.cached_trunk import Encoder, Tuned
from stages.encoders.embedding import embed_covers, embed_titles
from stages.encoders.image import DecodedCovers, ImageEncoder
from stages.encoders.text import TextEncoder, tiny_text_encoder
from stages.encoders.tuning import Alignment, pair_batches, parameter_groups
from stages.errors import run_stage
from stages.files import read_parquet, read_vectors, write_json
from stages.parallel.device import choose_device, has_bfloat16
from stages.parallel.distributed import BatchParts
from stages.params import Params, load_params
from stages.training.fit import Batches, Plan, TrainableModel, fit

ROUNDS = 3  # epochs or passes, after one to warm up; their median counts
SQUARE = 4096  # side of the matrices: large enough for a card's full rate
TITLES, COVERS = {"cpu": 256, "cuda": 16_384}, {"cpu": 32, "cuda": 2_048}

Result = dict[str, float]


def epoch_seconds(
    model: TrainableModel,
    batches: Batches,
    rate: float,
    device: torch.device,
    groups: list[dict[str, Any]] | None = None,
) -> float:
    """The median epoch of `fit`, as the stages call it, the first one left out. rate: of learning."""
    ends: list[float] = []

    def validate() -> dict[str, float]:
        ends.append(time.perf_counter())
        return {}

    with tempfile.TemporaryDirectory() as folder:
        fit(
            model, batches, validate, Plan(ROUNDS + 1, 1, None, rate, 0), device, Path(folder) / "curves",
            Path(folder) / "state", groups,
        )  # fmt: skip
    return statistics.median(np.diff(ends))


def pass_seconds(call: Callable[[], object]) -> float:
    """The median of ROUNDS calls, after one that does not count."""
    return statistics.median([training.seconds(call) for _ in range(ROUNDS + 1)][1:])


def of_steps(params: Params, positions: int, device: torch.device) -> Result:
    """Targets a second of both steps. positions: of a batch."""
    data, content = read_data(), [name for name in params.modalities if name != "id"]
    vectors = read_vectors(Path("artifacts/embeddings.parquet"), content)
    windows = training_windows(data.train, params.sequence.max_length)
    models: dict[str, TrainableModel] = {
        "pretrain": training.new_sasrec(params, data.items),
        "posttrain": training.new_sicsrec(params, data.items, {n: torch.from_numpy(v) for n, v in vectors.items()}),
    }

    def batches(epoch: int) -> Iterable[BatchParts]:
        return training_batches(data.train, windows, positions, np.random.default_rng(epoch), device)

    targets = int(windows.targets.sum())
    return {
        f"{name}_positions_per_second": targets / epoch_seconds(model, batches, params.pretrain.learning_rate, device)
        for name, model in models.items()
    }


def of_encoder(
    name: str, encoder: Encoder, inputs: dict[str, Tensor], embed: Callable[[], object], params: Params,
    device: torch.device,
) -> Result:  # fmt: skip
    """Items a second through the encoder, and in fine-tuning its last block; each pair counts as two.

    name: text or image. inputs: of all items.
    """
    count, p = len(next(iter(inputs.values()))), params.sft
    result = {f"embed_{name}_per_second": count / pass_seconds(embed)}
    part = Tuned(encoder, inputs, "last_block", fresh=False).to(device)
    width = part.eval()(torch.tensor([1])).shape[1]
    begin = time.perf_counter()
    part.cache_trunk(params.encoders.batch_size)
    result[f"sft_trunk_{name}_per_second"] = count / (time.perf_counter() - begin)
    tasks = ("t2t",) if name == "text" else ("i2i",)
    model = Alignment({name: part}, {name: width}, tasks, params.tau, torch.ones(count, dtype=torch.bool))
    pairs = torch.from_numpy(np.random.default_rng(params.seed).integers(1, count + 1, (count, 2)))
    seconds = epoch_seconds(
        model.to(device),
        lambda epoch: pair_batches(pairs, p.batch_size, np.random.default_rng(epoch)),
        p.new_learning_rate, device, parameter_groups(model, p.learning_rate, p.new_learning_rate),
    )  # fmt: skip
    return result | {f"sft_{name}_per_second": 2 * count / seconds}


def of_text(params: Params, count: int, device: torch.device) -> Result:
    """Titles of the dataset, over again where there are fewer than `count`, with an encoder of BERT-base's size."""
    e = params.encoders
    titles = read_parquet(Path("artifacts/split/items.parquet"))[f"title_{params.language}"].to_list()
    titles = [titles[index % len(titles)] for index in range(count)]
    encoder = base_text_encoder(titles, params)
    return of_encoder(
        "text", encoder, encoder.prepare(titles), lambda: embed_titles(encoder, titles, e.batch_size, device),
        params, device,
    )  # fmt: skip


def of_images(params: Params, count: int, device: torch.device) -> Result:
    """Noise for covers, with an encoder of Swin-base's size."""
    encoder = base_image_encoder(params)
    size = resolve_model_data_config(encoder.model)["input_size"]
    covers = DecodedCovers(torch.randn(count, *size), torch.ones(count, dtype=torch.bool), 0, 0)
    return of_encoder(
        "image", encoder, {"pixels": covers.pixels},
        lambda: embed_covers(encoder, covers, params.encoders.batch_size, device), params, device,
    )  # fmt: skip


def base_text_encoder(titles: list[str], params: Params) -> TextEncoder:
    """BERT-base's twelve layers of width 768 behind a vocabulary of the titles."""
    tiny = tiny_text_encoder(titles, params.encoders.pooling, params.encoders.max_tokens)
    config = BertConfig(vocab_size=len(tiny.tokenizer), attn_implementation="eager")
    return replace(tiny, model=BertModel(config))


def base_image_encoder(params: Params) -> ImageEncoder:
    """Swin-base of 224 × 224 covers."""
    return ImageEncoder(timm.create_model("swin_base_patch4_window7_224"), params.encoders.image_feature)


def main() -> None:
    params = load_params()
    device = choose_device(params.device)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=params.pretrain.batch_positions, help="of a batch in training")
    parser.add_argument("--titles", type=int, default=TITLES.get(device.type, TITLES["cpu"]))
    parser.add_argument("--covers", type=int, default=COVERS.get(device.type, COVERS["cpu"]))
    options = parser.parse_args()
    dtype = torch.bfloat16 if has_bfloat16(device) else torch.float32
    result: dict[str, Any] = {
        "machine": machine(device),
        "dataset": params.dataset,
        **vars(options),
        "matmul_gflops": matmul_rate(SQUARE, SQUARE, (SQUARE,), device, dtype) / 1e9,
        **of_steps(params, options.positions, device),
        **of_text(params, options.titles, device),
        **of_images(params, options.covers, device),
    }
    write_json(Path("metrics/bench_rates.json"), result)
    print(Path("metrics/bench_rates.json").read_text())


if __name__ == "__main__":
    run_stage(main)
