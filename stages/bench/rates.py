"""Throughput of training and embedding on this device: `python -m stages.bench.rates`, after `dvc repro`.

Positions per second of both training steps on the current dataset; titles and covers per second of `embed` and `sft`
with encoders of the sizes of BERT-base and Swin-base and random weights; and the rate of the device's matrix products,
in bfloat16 where training uses it. Writes `metrics/bench_rates.json`.
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
from stages.bench.machine import machine
from stages.bench.matmul import matmul_rate
from stages.data.histories import training_batches, training_windows
from stages.encoders.cached_trunk import Tuned
from stages.encoders.content_encoder import ContentEncoder, ItemInputs
from stages.encoders.embedding import embed_items
from stages.encoders.image import ImageEncoder
from stages.encoders.text import TextEncoder, tiny_text_encoder
from stages.encoders.tuning import Alignment, pair_batches, parameter_groups
from stages.errors import run_stage
from stages.files import read_parquet, write_json
from stages.parallel.device import choose_device, uses_bfloat16
from stages.parallel.distributed import BatchParts
from stages.params import Params, load_params
from stages.training.fit import Batches, Plan, TrainableModel, fit

ROUNDS = 3  # epochs or passes after one warm-up; the median is reported
SQUARE = 4096  # side of the matrices: large enough for the full rate of a GPU
TITLES, COVERS = {"cpu": 256, "cuda": 16_384}, {"cpu": 32, "cuda": 2_048}

Result = dict[str, float]


def epoch_seconds(
    model: TrainableModel,
    batches: Batches,
    learning_rate: float,
    device: torch.device,
    groups: list[dict[str, Any]] | None = None,
) -> float:
    """Median epoch of `fit` without the first one."""
    ends: list[float] = []

    def validate() -> dict[str, float]:
        ends.append(time.perf_counter())
        return {}

    with tempfile.TemporaryDirectory() as folder:
        fit(
            model, batches, validate, Plan(ROUNDS + 1, 1, None, learning_rate, 0), device, Path(folder) / "curves",
            Path(folder) / "state", groups,
        )  # fmt: skip
    return statistics.median(np.diff(ends))


def pass_seconds(call: Callable[[], object]) -> float:
    """Median of ROUNDS calls after one warm-up."""
    return statistics.median([training.seconds(call) for _ in range(ROUNDS + 1)][1:])


def training_rates(params: Params, positions: int, device: torch.device) -> Result:
    """Target positions per second of both training steps. positions: per batch."""
    data = training.read_data()
    windows = training_windows(data.train, params.sequence.max_length)
    sasrec, sicsrec = training.new_models(params, data.items)
    models: dict[str, TrainableModel] = {"pretrain": sasrec, "posttrain": sicsrec}

    def batches(epoch: int) -> Iterable[BatchParts]:
        return training_batches(data.train, windows, positions, np.random.default_rng(epoch), device)

    targets = int(windows.targets.sum())
    return {
        f"{name}_positions_per_second": targets / epoch_seconds(model, batches, params.pretrain.learning_rate, device)
        for name, model in models.items()
    }


def encoder_rates(
    name: str, encoder: ContentEncoder, inputs: dict[str, Tensor], embed: Callable[[], object], params: Params,
    device: torch.device,
) -> Result:  # fmt: skip
    """Items per second of embedding and of fine-tuning the last block, where a pair counts as two items.

    name: text or image. inputs: of all items.
    """
    count, p = len(next(iter(inputs.values()))), params.sft
    result = {f"embed_{name}_per_second": count / pass_seconds(embed)}
    encoder.model.to("cpu")  # `embed` moved it; Tuned reads a first item where the inputs are
    part = Tuned(encoder, inputs, "last_block", fresh=False).to(device)
    width = part.eval()(torch.tensor([1])).shape[1]
    begin = time.perf_counter()
    part.cache_trunk(params.encoders.batch_size)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    result[f"sft_trunk_{name}_per_second"] = count / (time.perf_counter() - begin)
    tasks = ("t2t",) if name == "text" else ("i2i",)
    model = Alignment(
        {name: part},
        {name: width},
        tasks,
        params.sft.temperature(params.tau),
        {name: torch.ones(count, dtype=torch.bool)},
    )
    pairs = torch.from_numpy(np.random.default_rng(params.seed).integers(1, count + 1, (count, 2)))
    seconds = epoch_seconds(
        model.to(device),
        lambda epoch: pair_batches(pairs, p.batch_size, np.random.default_rng(epoch)),
        p.new_learning_rate, device,
        parameter_groups(model, learning_rate=p.learning_rate, new_learning_rate=p.new_learning_rate),
    )  # fmt: skip
    return result | {f"sft_{name}_per_second": 2 * count / seconds}


def text_rates(encoder: TextEncoder, titles: list[str], params: Params, device: torch.device) -> Result:
    """Rates of titles with this encoder."""
    usable, size = torch.ones(len(titles), dtype=torch.bool), params.encoders.batch_size
    return encoder_rates(
        "text", encoder, encoder.prepare(titles),
        lambda: embed_items(encoder, ItemInputs(encoder.prepare(titles), usable), size, device), params, device,
    )  # fmt: skip


def image_rates(encoder: ImageEncoder, count: int, params: Params, device: torch.device) -> Result:
    """Rates of `count` covers of random pixels with this encoder."""
    size = resolve_model_data_config(encoder.model)["input_size"]
    covers = ItemInputs({"pixels": torch.randn(count, *size)}, torch.ones(count, dtype=torch.bool))
    return encoder_rates(
        "image", encoder, covers.values,
        lambda: embed_items(encoder, covers, params.encoders.batch_size, device), params, device,
    )  # fmt: skip


def repeated_titles(params: Params, count: int) -> list[str]:
    """`count` titles of the dataset, repeated if it has fewer."""
    titles = read_parquet(Path("artifacts/split/items.parquet"))[f"title_{params.language}"].to_list()
    return [titles[index % len(titles)] for index in range(count)]


def base_text_encoder(titles: list[str], params: Params) -> TextEncoder:
    """BERT-base (12 layers, width 768) with a vocabulary made of the titles."""
    tiny = tiny_text_encoder(titles, params.encoders.pooling, params.encoders.max_tokens)
    model = BertModel(BertConfig(vocab_size=len(tiny.tokenizer)))
    model.set_attn_implementation("eager")  # as load_text_encoder asks for
    return replace(tiny, model=model)


def base_image_encoder(params: Params) -> ImageEncoder:
    """Swin-base for covers of 224 × 224 pixels."""
    return ImageEncoder(timm.create_model("swin_base_patch4_window7_224"), params.encoders.image_feature)


def main() -> None:
    params = load_params()
    device = choose_device(params.device, params.precision)
    parser = argparse.ArgumentParser(
        prog="python -m stages.bench.rates", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--positions", type=int, default=params.pretrain.batch_positions, help="target positions per batch in training"
    )
    parser.add_argument("--titles", type=int, default=TITLES.get(device.type, TITLES["cpu"]))
    parser.add_argument("--covers", type=int, default=COVERS.get(device.type, COVERS["cpu"]))
    options = parser.parse_args()
    titles = repeated_titles(params, options.titles)
    dtype = torch.bfloat16 if uses_bfloat16(device) else torch.float32
    result: dict[str, Any] = {
        "machine": machine(device),
        "dataset": params.dataset,
        **vars(options),
        "matmul_gflops": matmul_rate(rows=SQUARE, dim=SQUARE, columns=(SQUARE,), device=device, dtype=dtype) / 1e9,
        **training_rates(params, options.positions, device),
        **text_rates(base_text_encoder(titles, params), titles, params, device),
        **image_rates(base_image_encoder(params), options.covers, params, device),
    }
    write_json(Path("metrics/bench_rates.json"), result)
    print(Path("metrics/bench_rates.json").read_text())


if __name__ == "__main__":
    run_stage(main, options=True)
