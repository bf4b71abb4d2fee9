"""Ours beside named alternatives, here and now: `python -m stages.bench`, after `dvc repro`.

Reads the split, the embeddings and the pairs in artifacts/, measures in one run, and writes `metrics/bench.json`.
`A_vs_B` above 1: ours is faster; `posttrain_vs_pretrain` is how many pretraining epochs a second-step epoch takes,
`growth_40k_to_10m` what an interaction costs in a log of 10 million over its cost in one of 40 thousand.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from stages.bench import beside_recbole, encoders, training
from stages.bench.machine import machine
from stages.data.histories import Histories
from stages.encoders.text import TINY, load_text_encoder
from stages.errors import run_stage
from stages.files import read_parquet, read_vectors, write_json
from stages.params import Params, load_params
from stages.training.device import choose_device

ARTIFACTS = Path("artifacts")
RESULT = Path("metrics/bench.json")


def read_data() -> training.Data:
    """The split of the last `dvc repro`."""
    train = Histories.from_frame(read_parquet(ARTIFACTS / "split/train.parquet"))
    valid, test = (read_parquet(ARTIFACTS / f"split/{name}.parquet")["item"].to_numpy() for name in ("valid", "test"))
    items = len(read_parquet(ARTIFACTS / "split/items.parquet"))
    return training.Data(train, valid, train.extended(valid), test, items)


def of_training(params: Params, data: training.Data) -> dict[str, float]:
    """Both training steps, ranking, the share of the machine's matrix rate, growth."""
    vectors = read_vectors(ARTIFACTS / "embeddings.parquet", [name for name in params.modalities if name != "id"])
    sasrec = training.new_sasrec(params, data.items)
    sicsrec = training.new_sicsrec(params, data.items, {name: torch.from_numpy(v) for name, v in vectors.items()})
    pretrain = training.epoch_seconds(sasrec, params, data)
    posttrain = training.epoch_seconds(sicsrec, params, data)
    rate = training.matmul_rate(params.pretrain.batch_positions, params.dim, (params.dim, data.items))
    small, large = (training.seconds_an_interaction(params, size) for size in (40_000, 10_000_000))
    return {
        "pretrain_seconds": pretrain,
        "posttrain_seconds": posttrain,
        "posttrain_vs_pretrain": posttrain / pretrain,
        "ranking_seconds": training.ranking_seconds(sasrec, params, data),
        "matmul_gflops": rate / 1e9,
        "matmul_share": training.epoch_flops(sasrec, params, data) / pretrain / rate,
        "growth_40k_to_10m": large / small,
    }


def of_encoders(params: Params, name: str) -> dict[str, float]:
    """Fine-tuning and embedding with a pretrained text encoder; none with the tiny one, which has no frozen trunk."""
    if name == TINY:
        print("sft and embed: not measured, a tiny encoder trains wholly: name a pretrained one with --text-encoder")
        return {}
    titles = read_parquet(ARTIFACTS / "split/items.parquet")[f"title_{params.language}"].to_list()
    pairs = torch.from_numpy(read_parquet(ARTIFACTS / "pairs.parquet").select("target", "similar").to_numpy()).long()
    encoder = load_text_encoder(name, params.encoders.pooling, params.encoders.max_tokens)
    p = params.sft
    sft = encoders.fine_tuning(encoder, titles, pairs, p.batch_size, params.tau, (p.learning_rate, p.new_learning_rate))
    embed = encoders.embedding(encoder, titles, params.encoders.batch_size)
    return sft | embed | {
        "sft_cached_vs_naive": sft["sft_plain_seconds"] / sft["sft_cached_seconds"],
        "embed_sorted_vs_unsorted": embed["embed_unsorted_seconds"] / embed["embed_sorted_seconds"],
    }  # fmt: skip


def of_recbole(params: Params, data: training.Data, ours: dict[str, float], threads: int) -> dict[str, float]:
    """RecBole's SASRec on the same split, histories padded to `max_length` and to what holds 99 % of them."""
    usual = min(int(np.percentile(data.known.lengths, 99)), params.pretrain.max_length)
    with tempfile.TemporaryDirectory() as folder:
        theirs = {}
        for name, length, score_epochs in (("len50", params.pretrain.max_length, 0), ("cut", usual, 3)):
            place = Path(folder) / f"{params.dataset}_{name}"
            beside_recbole.write_atomic_files(place, data.train, data.valid.tolist(), data.test.tolist(), length)
            theirs[name] = beside_recbole.measure(place, params, length, threads, score_epochs)
    cut, goal = theirs["cut"], theirs["cut"]["score"]
    to_score = training.seconds_to_reach(params, data, goal)
    return {
        "recbole_cut": usual,
        "recbole_len50_epoch_seconds": theirs["len50"]["epoch"],
        "recbole_cut_epoch_seconds": cut["epoch"],
        "recbole_len50_ranking_seconds": theirs["len50"]["evaluate"],
        "recbole_cut_ranking_seconds": cut["evaluate"],
        "pretrain_vs_recbole_len50": theirs["len50"]["epoch"] / ours["pretrain_seconds"],
        "pretrain_vs_recbole_cut": cut["epoch"] / ours["pretrain_seconds"],
        "evaluation_vs_recbole": theirs["len50"]["evaluate"] / ours["ranking_seconds"],
        "validation_ndcg@10_to_reach": goal,
        "to_score_vs_recbole_cut": cut["score_seconds"] / to_score,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.bench", description=__doc__)
    parser.add_argument("--text-encoder", help="of sft and embed; else params.yaml's")
    options = parser.parse_args()
    params, threads = load_params(), os.cpu_count() or 1
    torch.set_num_threads(threads)
    choose_device("cpu")
    data = read_data()
    result: dict[str, float | str] = {"dataset": params.dataset, "machine": machine(torch.device("cpu"))}
    ours = of_training(params, data)
    result |= ours | of_encoders(params, options.text_encoder or params.text_encoder)
    result["split_seconds"] = training.seconds(
        lambda: subprocess.run([sys.executable, "-m", "stages.split"], check=True)
    )
    try:
        result |= of_recbole(params, data, ours, threads)
    except beside_recbole.NotToBeHad as error:
        print(f"RecBole: not measured, {error}")
    write_json(RESULT, result)
    for key, value in result.items():
        print(f"{key:34} {value:.3g}" if isinstance(value, float) else f"{key:34} {value}")


if __name__ == "__main__":
    run_stage(main)
