import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from stages.errors import InputError
from stages.files import write_parquet
from stages.provenance import recorded
from tests.judge.ollama_server import DIGEST, MODEL, Fault, chat_reply, ollama_server

ROOT = Path(__file__).parents[1]
PAIRS = Path("artifacts/pairs.parquet")


def facts() -> dict:
    return json.loads(Path("metrics/pairs.json").read_text())


def as_a_command() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages.pairs"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def start_command() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "stages.pairs"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def write_titles(**titles: str) -> None:
    """Give all items of the split these titles, by language."""
    path = Path("artifacts/split/items.parquet")
    columns = [pl.lit(title).alias(f"title_{language}") for language, title in titles.items()]
    write_parquet(path, pl.read_parquet(path).with_columns(columns), recorded(path)[1])


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


def test_an_interruption_is_one_line_and_the_next_run_goes_on(after):
    workspace = after("split")
    with ollama_server(lambda number, body: Fault.HANG if number > 20 else None) as server:
        workspace.set_params(llm=MODEL, ollama={"hosts": [server.url], "concurrency": 1})
        with start_command() as process:
            while len(server.requests) < 21:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            errors = process.communicate(timeout=10)[1]
        assert process.returncode == 130
        assert "Traceback" not in errors
        assert not PAIRS.exists()
        server.behaviour = lambda number, body: None
        workspace.run("pairs")
        assert PAIRS.exists()
        contents = [body["messages"][0]["content"] for body in server.requests]
        assert len(contents) == len(set(contents)) + 1  # the one in flight


def test_titles_in_another_language_only_are_an_input_error(after):
    workspace = after("split")
    write_titles(zh="", en="a title")
    with pytest.raises(InputError, match="items.parquet: no item has a title_zh: set language=en"):
        workspace.run("pairs")


@pytest.mark.parametrize("llm", ["lexical", MODEL])
def test_items_without_any_title_have_no_pairs(after, capsys, llm):
    workspace = after("split")
    write_titles(zh="", en="")
    workspace.set_params(llm=llm)
    workspace.run("pairs")
    assert pl.read_parquet(PAIRS).is_empty()
    assert (facts()["pairs"], facts()["none"]) == (0, 80)
    assert "no item has a title" in capsys.readouterr().out


def test_a_judge_that_finds_nothing_is_an_input_error(after):
    workspace = after("split")
    workspace.set_params(pairs={"threshold": 1.0})
    with pytest.raises(InputError, match="llm=lexical found no similar pair: lower pairs.threshold"):
        workspace.run("pairs")
    assert not PAIRS.exists()


def test_a_language_model_that_finds_nothing_has_no_threshold_to_lower(after):
    workspace = after("split")
    with ollama_server(lambda number, body: chat_reply('{"id": -1}')) as server:
        workspace.set_params(llm=MODEL, ollama={"hosts": [server.url]})
        with pytest.raises(InputError, match=f"llm={MODEL} found no similar pair: use another judge"):
            workspace.run("pairs")


def test_a_missing_split_is_an_input_error(after):
    workspace = after("download")
    with pytest.raises(InputError, match="train.parquet is missing: run `dvc repro`"):
        workspace.run("pairs")
