import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from stages.errors import InputError
from tests.judge.ollama_server import DIGEST, MODEL, ollama_server

ROOT = Path(__file__).parents[1]
PAIRS = Path("artifacts/pairs.parquet")


def facts() -> dict:
    return json.loads(Path("metrics/pairs.json").read_text())


def as_a_command() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages.pairs"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_target_is_the_last_training_item_and_the_similar_one_stands_before_it(after):
    after("split").run("pairs")
    histories = dict(pl.read_parquet("artifacts/split/train.parquet").select("user", "items").rows())
    pairs = pl.read_parquet(PAIRS)
    assert pairs.height == facts()["pairs"] > 0
    for user, target, similar in pairs.rows():
        assert histories[user][-1] == target
        assert similar in histories[user][:-1]
        assert similar != target


def test_every_history_is_a_pair_or_none_or_skipped(after):
    after("split").run("pairs")
    counts = facts()
    assert counts["histories"] == 80
    assert counts["pairs"] + counts["none"] + counts["invalid"] + counts["skipped"] == 80


def test_every_answer_is_kept_by_user(after):
    after("split").run("pairs")
    answers = pl.read_parquet("artifacts/answers.parquet")
    assert answers["user"].is_sorted()
    kept = answers.filter(pl.col("chosen").is_not_null()).select("user", "target", similar="chosen")
    assert kept.equals(pl.read_parquet(PAIRS))


def test_full_histories_reach_the_test_item_and_the_log_says_so(after, capsys):
    workspace = after("split")
    workspace.set_params(pairs={"history": "full"})
    workspace.run("pairs")
    test_items = dict(pl.read_parquet("artifacts/split/test.parquet").rows())
    assert all(test_items[user] == target for user, target, _ in pl.read_parquet(PAIRS).rows())
    assert "sees validation and test items" in capsys.readouterr().out


def test_a_model_on_an_ollama_server_is_the_judge(after):
    workspace = after("split")
    with ollama_server() as server:
        workspace.set_params(llm=MODEL, ollama={"hosts": [server.url]})
        done = as_a_command()
    assert done.returncode == 0, done.stderr
    histories = dict(pl.read_parquet("artifacts/split/train.parquet").select("user", "items").rows())
    for user, target, similar in pl.read_parquet(PAIRS).rows():  # the stand-in takes the first candidate
        assert similar == next(item for item in histories[user] if item != target)
    assert (facts()["model"], facts()["digest"]) == (MODEL, DIGEST)
    answers = pl.read_parquet("artifacts/answers.parquet")
    assert answers["prompt"].str.len_chars().unique().to_list() == [64]
    assert (answers["seconds"] > 0).all()


def test_without_a_server_it_says_what_to_start_in_one_line_and_keeps_what_was_there(after):
    workspace = after("pairs")
    before = PAIRS.read_bytes()
    workspace.set_params(llm=MODEL, ollama={"hosts": ["http://127.0.0.1:9"]})
    done = as_a_command()
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line]
    assert errors == [
        "error: no Ollama server at http://127.0.0.1:9: start it with `ollama serve`, or set ollama.hosts"
    ]
    assert PAIRS.read_bytes() == before


def test_a_judge_that_finds_nothing_is_an_input_error(after):
    workspace = after("split")
    workspace.set_params(pairs={"threshold": 1.0})
    with pytest.raises(InputError, match="llm=lexical found no similar pair: lower pairs.threshold"):
        workspace.run("pairs")
    assert not PAIRS.exists()


def test_a_missing_split_is_an_input_error(after):
    workspace = after("download")
    with pytest.raises(InputError, match="train.parquet is missing: run `dvc repro`"):
        workspace.run("pairs")
