import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from stages.bench import card, card_parts, rates
from stages.bench.card_parts import TINY
from stages.bench.card_sample import agreement
from stages.files import read_json, write_json
from stages.params import load_params
from tests.parallel.fake_cuda import fake_cuda
from tests.parallel.test_stages_on_fake_cuda import on_gpu_without_sync

RATE = "positions_per_second"


@pytest.fixture
def params(after, monkeypatch):
    after("download")
    monkeypatch.setattr(rates, "ROUNDS", 1)
    return load_params()


def test_training_is_measured_on_the_fake_gpu_for_each_step_and_batch_size(params):
    with fake_cuda() as gpu:
        result = card_parts.measure_training(params, gpu, TINY)
    steps = {f"{name}_{size}" for name in ("pretrain", "posttrain", "posttrain_covers") for size in TINY.batches}
    assert result.keys() == steps | {"matmul_tflops"}
    assert all(result[step][RATE] > 0 and result[step]["matmul_share"] > 0 for step in steps)


def test_encoders_and_a_large_catalogue_are_measured_on_the_fake_gpu(params):
    with fake_cuda() as gpu:
        encoders = card_parts.measure_encoders(params, gpu, TINY)
        large = card_parts.measure_large(params, gpu, TINY)
    assert all(encoders[f"{part}_{name}_per_second"] > 0 for part in ("embed", "sft") for name in ("text", "image"))
    assert large["items"] == TINY.large_items
    assert large[RATE] > 0


def test_an_epoch_for_host_syncs_never_waits_for_the_fake_gpu_in_a_step(params):
    with on_gpu_without_sync(), fake_cuda() as gpu:  # raises where a step waits
        counts = card_parts.measure_syncs(params, gpu, TINY)
    assert counts == {"pretrain_host_syncs": None, "posttrain_host_syncs": None}  # only CUDA counts them


def test_torch_compile_is_measured_on_and_off(params):
    with torch.compiler.set_stance("force_eager"):  # compiling takes minutes
        result = card_parts.measure_compile(params, torch.device("cpu"), TINY)
    assert all(result[f"compile_{name}_{RATE}"] > 0 for name in ("on", "off"))


def test_a_part_that_fails_or_takes_too_long_is_recorded_and_the_others_go_on(after, monkeypatch, tmp_path):
    after("download")
    monkeypatch.setattr(card, "PARTS", {name: card.PARTS[name] for name in ("large", "compile")})
    monkeypatch.setitem(card.PARTS, "compile", card.Part(card_parts.measure_compile, 0.1))
    file = tmp_path / "card.json"
    monkeypatch.setattr("sys.argv", ["card", "--device", "cpu", "--tiny", "--budget", "5", "--result", str(file)])
    card.main()
    result = read_json(file)
    assert result["compile"]["error"] == "stopped after 0.5 s"
    assert result["large"]["items"] == TINY.large_items


def test_the_error_of_a_part_is_its_last_line(after):
    after("download")
    assert "device=cuda:77 is not available" in card.run_part("large", ["--device", "cuda:77", "--tiny"], 200)["error"]


def is_running(process: int) -> bool:
    state = Path(f"/proc/{process}/stat")
    try:
        return state.read_text().split()[2] != "Z"  # Z: it has ended, and nobody has asked for its status
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_a_stopped_part_has_started_ends_with_it(after, monkeypatch, tmp_path):
    after("download")
    started = tmp_path / "pid"
    python = tmp_path / "python"  # in place of the part's Python: starts a process and waits for it
    python.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {started}\nwait\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    assert card.run_part("large", [], 3)["error"] == "stopped after 3 s"
    process = int(started.read_text())
    end = time.monotonic() + 30
    while is_running(process) and time.monotonic() < end:  # the kernel takes a moment
        time.sleep(0.1)
    assert not is_running(process)


@pytest.fixture
def clone(tmp_path):
    """clone(name, ranks): a folder with these ranks of every system's test items."""

    def make(name, ranks):
        for system in ("sicsrec", "id_encoder"):
            path = tmp_path / name / f"artifacts/ranks/{system}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pl.DataFrame({"rank": ranks, "rank_filtered": ranks}).write_parquet(path)
        return tmp_path / name

    return make


def test_runs_whose_differences_cancel_out_are_not_told_apart_and_worse_ones_are(clone, tmp_path):
    write_json(tmp_path / "evaluate.json", {"interval": {"ndcg@10": [0.5, 0.9]}})
    cpu = clone("cpu", np.tile([1, 2], 100))  # mean ndcg@10: 0.815
    same = agreement(clone("same", np.tile([2, 1], 100)), cpu, tmp_path / "evaluate.json")
    assert same["sicsrec_kept"]["within"]
    assert same["within_committed"]
    worse = agreement(clone("worse", np.tile([4, 5], 100)), cpu, tmp_path / "evaluate.json")
    assert not worse["id_encoder_filtered"]["within"]
    assert not worse["within_committed"]
