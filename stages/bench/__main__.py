"""Ours beside named alternatives, here and now: `python -m stages.bench`, after `dvc repro`.

Reads the split, the embeddings and the pairs in artifacts/, measures in one run, and writes `metrics/bench.json`.
`A_vs_B` above 1: ours is faster; `posttrain_vs_pretrain` is how many pretraining epochs a second-step epoch takes,
`growth_40k_to_10m` what an interaction costs in a log of 10 million over its cost in one of 40 thousand.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from stages.bench import beside_recbole, encoders, matmul, training
from stages.bench.growth import growth
from stages.bench.machine import machine
from stages.bench.measured import measured
from stages.bench.results import Result, earlier_results, table
from stages.data.histories import Histories
from stages.encoders.text import TINY, load_text_encoder
from stages.errors import InputError, run_stage
from stages.files import read_parquet, read_vectors, write_json
from stages.parallel.device import choose_device
from stages.params import Params, load_params

ARTIFACTS = Path("artifacts")
RESULT = Path("metrics/bench.json")
SFT_PAIRS = 512  # ten epochs of them take a plain loop two minutes, of all of Bili_Food's a quarter of an hour


def read_data() -> training.Data:
    """The split of the last `dvc repro`."""
    train = Histories.from_frame(read_parquet(ARTIFACTS / "split/train.parquet"))
    valid, test = (read_parquet(ARTIFACTS / f"split/{name}.parquet")["item"].to_numpy() for name in ("valid", "test"))
    items = len(read_parquet(ARTIFACTS / "split/items.parquet"))
    return training.Data(train, valid, train.extended(valid), test, items)


def of_steps(params: Params) -> Result:
    """Both training steps, and the share of the machine's matrix rate."""
    data = read_data()
    vectors = read_vectors(ARTIFACTS / "embeddings.parquet", [name for name in params.modalities if name != "id"])
    sasrec = training.new_sasrec(params, data.items)
    sicsrec = training.new_sicsrec(params, data.items, {name: torch.from_numpy(v) for name, v in vectors.items()})
    pretrain = training.epoch_seconds(sasrec, params, data)
    rate = matmul.matmul_rate(params.pretrain.batch_positions, params.dim, (params.dim, data.items))
    posttrain = training.epoch_seconds(sicsrec, params, data)
    return {
        "pretrain_seconds": pretrain,
        "posttrain_seconds": posttrain,
        "posttrain_vs_pretrain": posttrain / pretrain,
        "matmul_gflops": rate / 1e9,
        "matmul_share": matmul.epoch_flops(sasrec, params, data) / pretrain / rate,
    }


def of_recbole(params: Params, threads: int) -> Result:
    """RecBole's SASRec on the same split; nothing where it cannot be had."""
    try:
        return beside_recbole.compared(params, read_data(), threads)
    except beside_recbole.NotToBeHad as error:
        print(f"RecBole: not measured, {error}")
        return {}


def of_encoders(params: Params, name: str, pairs_limit: int) -> Result:
    """Fine-tuning and embedding with a pretrained text encoder; none with the tiny one, which has no frozen trunk."""
    if name == TINY:
        print("sft and embed: not measured, a tiny encoder trains wholly: name a pretrained one with --text-encoder")
        return {}
    p, e = params.sft, params.encoders
    titles = read_parquet(ARTIFACTS / "split/items.parquet")[f"title_{params.language}"].to_list()
    pairs = read_parquet(ARTIFACTS / "pairs.parquet").select("target", "similar")
    pairs = pairs.sample(min(pairs_limit, len(pairs)), seed=params.seed, shuffle=True)
    encoder = load_text_encoder(name, e.pooling, e.max_tokens)
    embed = encoders.embedding(encoder, titles, e.batch_size)
    rates = (p.learning_rate, p.new_learning_rate)
    sft = encoders.fine_tuning(
        encoder, titles, torch.from_numpy(pairs.to_numpy()).long(), p.batch_size, params.tau, rates
    )
    return embed | sft | {
        "text_encoder": Path(name).name,
        "sft_pairs": len(pairs),
        "sft_cached_vs_naive": sft["sft_plain_seconds"] / sft["sft_cached_seconds"],
        "embed_sorted_vs_unsorted": embed["embed_unsorted_seconds"] / embed["embed_sorted_seconds"],
    }  # fmt: skip


def of_growth(params: Params) -> Result:
    """An interaction's cost in a synthetic log of 10 million over its cost in one of 40 thousand."""
    costs = growth(params, 40_000, 10_000_000)
    return costs | {"growth_40k_to_10m": costs["growth_large_microseconds"] / costs["growth_small_microseconds"]}


def of_split() -> Result:
    """The split stage in a folder of its own, so that artifacts/ and metrics/ stay as they are."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy("params.yaml", folder)
        (Path(folder) / ARTIFACTS).mkdir()
        (Path(folder) / ARTIFACTS / "raw").symlink_to((ARTIFACTS / "raw").resolve())
        return {"split_seconds": measured(["-m", "stages.split"], Path(folder))["seconds"]}


def main() -> None:
    params, threads = load_params(), os.cpu_count() or 1
    parts: dict[str, Callable[[], Result]] = {
        "steps": lambda: of_steps(params),
        "growth": lambda: of_growth(params),
        "split": of_split,
        "encoders": lambda: of_encoders(params, options.text_encoder or params.text_encoder, options.sft_pairs),
        "recbole": lambda: of_recbole(params, threads),
    }
    parser = argparse.ArgumentParser(
        prog="python -m stages.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text-encoder", help="of sft and embed; else params.yaml's")
    parser.add_argument("--sft-pairs", type=int, default=SFT_PAIRS, help="at most as many; default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=parts, help="parts to measure; the file keeps the others")
    options = parser.parse_args()
    if not (ARTIFACTS / f"raw/{params.dataset}_pair.csv").is_file():
        raise InputError(f"artifacts/ does not hold {params.dataset}, which params.yaml names: run `dvc repro`")

    torch.set_num_threads(threads)
    choose_device("cpu")
    where = machine(torch.device("cpu"))
    result: Result = {"dataset": params.dataset, "machine": where}
    if options.only:
        result = earlier_results(RESULT, params.dataset, where)
    for name in options.only or parts:
        result |= parts[name]()
        write_json(RESULT, result)
    print(table(result))


if __name__ == "__main__":
    run_stage(main)
