"""Speed of ours against named alternatives on this machine: `python -m stages.bench`, after `dvc repro`.

Reads the split, the embeddings and the pairs in artifacts/ and writes `metrics/bench.json`. `A_vs_B` above 1: ours is
faster. Exceptions: `posttrain_vs_pretrain` is an epoch of posttrain in epochs of pretrain, `growth_40k_to_10m` the time
per interaction in a log of 10 million divided by that in a log of 40 thousand.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from stages.bench import encoders, large, matmul, table4_time, training
from stages.bench.epoch_sample import growth
from stages.bench.machine import machine
from stages.bench.peer_environment import Unavailable
from stages.bench.recbole_comparison import compare_with_recbole
from stages.bench.rectools_comparison import compare_with_rectools
from stages.bench.results import Result, earlier_results, table
from stages.bench.subprocess_usage import subprocess_usage
from stages.encoders.modalities import TINY
from stages.encoders.text_loading import load_text_encoder
from stages.errors import InputError, run_stage
from stages.files import read_parquet, user_path, write_json
from stages.parallel.device import choose_device
from stages.params import Params, load_params

RESULT = Path("metrics/bench.json")
SFT_PAIRS = 512  # two minutes for ten epochs of the plain loop; all pairs of Bili_Food would take 15


def compare_steps(params: Params) -> Result:
    """Both training steps, and the share of the machine's matrix rate that pretraining reaches."""
    data = training.read_data()
    sasrec, sicsrec = training.new_models(params, data.items)
    pretrain = training.epoch_seconds(sasrec, params, data)
    rate = matmul.matmul_rate(rows=params.pretrain.batch_positions, dim=params.dim, columns=(params.dim, data.items))
    posttrain = training.epoch_seconds(sicsrec, params, data)
    flops, posttrain_flops = (
        matmul.epoch_flops(model, training.epoch_batches(params, data)) for model in (sasrec, sicsrec)
    )
    return {
        "pretrain_seconds": pretrain,
        "posttrain_seconds": posttrain,
        "posttrain_vs_pretrain": posttrain / pretrain,
        "posttrain_flops_vs_pretrain": posttrain_flops / flops,
        "matmul_gflops": rate / 1e9,
        "matmul_share": flops / pretrain / rate,
    }


def compare_peer(name: str, compare: Callable[[Params, training.Data, int], Result], params: Params) -> Result:
    """A peer's SASRec on the same split; no values, and a line, where the peer cannot be installed."""
    try:
        return compare(params, training.read_data(), torch.get_num_threads())
    except Unavailable as error:
        print(f"{name}: not measured, {error}")
        return {}


def compare_encoders(params: Params, name: str, pairs_limit: int) -> Result:
    """Fine-tuning and embedding with a pretrained text encoder; no values, and a line, with the tiny one."""
    if name == TINY:
        print(
            "sft and embed: not measured, no part of a tiny encoder is frozen: name a pretrained one by --text-encoder"
        )
        return {}
    p, e = params.sft, params.encoders
    titles = read_parquet(training.ARTIFACTS / "split/items.parquet")[f"title_{params.language}"].to_list()
    pairs = read_parquet(training.ARTIFACTS / "pairs.parquet").select("target", "similar")
    pairs = pairs.sample(min(pairs_limit, len(pairs)), seed=params.seed, shuffle=True)
    encoder = load_text_encoder(name, e.pooling, e.max_tokens)
    embed = encoders.embedding(encoder, titles, e.batch_size)
    rates = (p.learning_rate, p.new_learning_rate)
    numbers = torch.from_numpy(pairs.to_numpy()).long()
    sft = encoders.fine_tuning(
        encoder, titles, numbers, batch_size=p.batch_size, tau=params.sft.temperature(params.tau), rates=rates
    )
    return {
        **embed,
        **sft,
        "text_encoder": Path(name).name,
        "sft_pairs": len(pairs),
        "sft_cached_vs_naive": sft["sft_plain_seconds"] / sft["sft_cached_seconds"],
        "embed_sorted_vs_unsorted": embed["embed_unsorted_seconds"] / embed["embed_sorted_seconds"],
    }


def compare_log_sizes(params: Params) -> Result:
    """Time per interaction in a synthetic log of 10 million and in one of 40 thousand, and their ratio."""
    costs = growth(params, small=40_000, large=10_000_000)
    return {**costs, "growth_40k_to_10m": costs["growth_large_microseconds"] / costs["growth_small_microseconds"]}


def measure_split() -> Result:
    """The stage `split` in a temporary folder, so that artifacts/ and metrics/ are not touched."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy("params.yaml", folder)
        (Path(folder) / training.ARTIFACTS).mkdir()
        (Path(folder) / training.ARTIFACTS / "raw").symlink_to((training.ARTIFACTS / "raw").resolve())
        return {"split_seconds": subprocess_usage(["-m", "stages.split"], Path(folder))["seconds"]}


def measure_large_catalogue() -> Result:
    """One epoch of pretraining on the synthetic log of `stages.bench.large`; all of its values go to its own file."""
    result = large.measure_large(large.SIZES)
    write_json(large.RESULT, result)
    pretrain = result["pretrain"]
    return {
        "large_positions_per_s": pretrain["positions_per_second"],
        "large_peak_gb": pretrain["peak_gb"],
        "large_ranking_seconds": pretrain["ranking_seconds"],
        "large_split_seconds": result["split"]["seconds"],
    }


def measure_table4(params: Params, text_encoder: str) -> Result:
    """Training time of all systems on Bili_Dance; no values, and a line, where `source` is not a place with it."""
    if not (user_path(params.source) / table4_time.DATASET).is_dir():
        print(f"Table 4: not measured, source={params.source} is no folder with {table4_time.DATASET}")
        return {}
    return table4_time.table4_time(text_encoder)


def main() -> None:
    params = load_params()
    parts: dict[str, Callable[[], Result]] = {
        "steps": lambda: compare_steps(params),
        "growth": lambda: compare_log_sizes(params),
        "split": measure_split,
        "encoders": lambda: compare_encoders(params, options.text_encoder or params.text_encoder, options.sft_pairs),
        "recbole": lambda: compare_peer("RecBole", compare_with_recbole, params),
        "rectools": lambda: compare_peer("RecTools", compare_with_rectools, params),
        "large": measure_large_catalogue,
        "table4": lambda: measure_table4(params, options.text_encoder or params.text_encoder),
    }
    parser = argparse.ArgumentParser(
        prog="python -m stages.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text-encoder", help="for sft, embed and table4; default: that of params.yaml")
    parser.add_argument(
        "--sft-pairs", type=int, default=SFT_PAIRS, help="use at most this many pairs; default: %(default)s"
    )
    parser.add_argument(
        "--only", nargs="+", choices=parts, help="measure only these parts; the file retains the others"
    )
    options = parser.parse_args()
    if not (training.ARTIFACTS / f"raw/{params.dataset}_pair.csv").is_file():
        raise InputError(f"artifacts/ does not hold {params.dataset}, which params.yaml names: run `dvc repro`")

    torch.set_num_threads(os.cpu_count() or 1)
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
    run_stage(main, options=True)
