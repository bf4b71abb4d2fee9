import json
from dataclasses import replace
from pathlib import Path

import pytest

from stages.errors import InputError
from stages.judge.ollama import Server, ask, shorten, tokens_at_most
from stages.judge.prompt import Question, render
from tests.judge.ollama_server import DIGEST, MODEL, VERSION, chat_reply, ollama_server

QUESTIONS = [Question(user, 10, tuple(range(1, 3 + user % 5))) for user in range(20)]  # five different ones
TITLES = [f"title {item}" for item in range(1, 11)]


def server_at(*urls: str) -> Server:
    return Server(
        hosts=urls, model=MODEL, concurrency=3, timeout=5.0, num_ctx=2048, keep_alive="5m", seed=7, language="en",
        answer_format="json", retry_seconds=0.01,
    )  # fmt: skip


def asked(journal: Path, behaviour=None, max_invalid=0.05, **changes):
    with ollama_server(behaviour) as stand_in:
        report = ask(QUESTIONS, TITLES, replace(server_at(stand_in.url), **changes), journal, max_invalid)
        return report, stand_in.requests


@pytest.mark.parametrize("answer_format", ["json", "text"])
def test_every_question_is_answered_and_equal_prompts_are_asked_once(tmp_path, answer_format):
    report, requests = asked(tmp_path / "journal", answer_format=answer_format)
    assert report.answers == [1] * 20
    assert len(requests) == 5
    expected = {"model": MODEL, "digest": DIGEST, "server_version": VERSION, "invalid": 0, "shortened": 0}
    assert report.facts == expected | {"tokens_in": 200, "tokens_out": 25}


def test_a_request_is_repeatable_and_does_not_think(tmp_path):
    _, requests = asked(tmp_path / "journal")
    for body in requests:
        assert body["options"] == {"temperature": 0, "seed": 7, "num_ctx": 2048}
        assert body["think"] is False
        assert body["stream"] is False
        assert body["keep_alive"] == "5m"


def test_journalled_answers_are_not_asked_again(tmp_path):
    first, _ = asked(tmp_path / "journal")
    again, requests = asked(tmp_path / "journal")
    assert requests == []
    assert again == first


def test_another_seed_asks_anew(tmp_path):
    asked(tmp_path / "journal")
    _, requests = asked(tmp_path / "journal", seed=8)
    assert len(requests) == 5


def test_a_line_that_a_kill_cut_short_is_asked_again(tmp_path):
    first, _ = asked(tmp_path / "journal")
    content = (tmp_path / "journal").read_bytes()
    (tmp_path / "journal").write_bytes(content[:-20])
    again, requests = asked(tmp_path / "journal")
    assert len(requests) == 1
    assert again == first
    assert len((tmp_path / "journal").read_text().splitlines()) == 5


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    asked(tmp_path / "journal")
    lines = (tmp_path / "journal").read_text().splitlines()
    (tmp_path / "journal").write_text("\n".join([lines[0], "{broken", *lines[1:]]) + "\n")
    with pytest.raises(InputError, match="line 2"):
        asked(tmp_path / "journal")


@pytest.mark.parametrize(
    "reply",
    [
        (503, json.dumps({"error": "server busy, please try again.  maximum pending requests exceeded"})),
        (500, json.dumps({"error": "model runner has unexpectedly stopped"})),
        (200, '{"model": "judge:1b", "mess'),
    ],
)
def test_a_passing_fault_is_asked_again(tmp_path, reply):
    report, requests = asked(tmp_path / "journal", lambda number, body: reply if number <= 3 else None)
    assert report.answers == [1] * 20
    assert len(requests) == 8


def test_a_lasting_fault_ends_in_one_line_and_keeps_what_was_answered(tmp_path):
    busy = (503, json.dumps({"error": "busy"}))
    with pytest.raises(InputError, match="failed 6 times"):
        asked(tmp_path / "journal", lambda number, body: busy if number > 3 else None, concurrency=1)
    assert len((tmp_path / "journal").read_text().splitlines()) == 3


def test_a_refused_request_is_not_repeated(tmp_path):
    with pytest.raises(InputError, match="400"):
        asked(tmp_path / "journal", lambda number, body: (400, json.dumps({"error": "bad option"})))


@pytest.mark.parametrize("content", ['{"id": 99}', "", "the second one"])
def test_too_many_invalid_answers_fail_with_an_example(tmp_path, content):
    with pytest.raises(InputError, match="20 of 20 answers") as error:
        asked(tmp_path / "journal", lambda number, body: chat_reply(content))
    assert repr(content) in str(error.value)


def test_a_few_invalid_answers_are_counted(tmp_path):
    report, _ = asked(
        tmp_path / "journal", lambda number, body: chat_reply("no") if number == 1 else None, 0.3, concurrency=1
    )
    assert report.facts["invalid"] == 4  # one prompt, asked for four users
    assert report.answers.count(None) == 4


def test_an_absent_server_says_how_to_start_it(tmp_path):
    with ollama_server() as stand_in:
        url = stand_in.url
    with pytest.raises(InputError, match="ollama serve"):
        ask(QUESTIONS, TITLES, server_at(url), tmp_path / "journal", 0.05)


def test_an_absent_model_says_how_to_get_it(tmp_path):
    with pytest.raises(InputError, match="ollama pull other:7b"):
        asked(tmp_path / "journal", model="other:7b")


def test_several_hosts_share_the_prompts(tmp_path):
    with ollama_server() as one, ollama_server() as two:
        report = ask(QUESTIONS, TITLES, server_at(one.url, two.url), tmp_path / "journal", 0.05)
    assert report.answers == [1] * 20
    assert len(one.requests) + len(two.requests) == 5
    assert one.requests
    assert two.requests


def test_a_prompt_too_long_for_the_context_keeps_its_latest_candidates(tmp_path):
    server = replace(server_at("http://127.0.0.1:1"), num_ctx=1000)
    question = Question(0, 100, tuple(range(1, 100)))
    titles = [f"a title of some length, number {item}" for item in range(1, 101)]
    shorter = shorten(question, titles, server)
    assert shorter.candidates == question.candidates[-len(shorter.candidates) :]
    assert 1 <= len(shorter.candidates) < 99
    assert tokens_at_most(render(shorter, titles, "en", "json")) <= 1000


def test_a_context_too_small_for_one_candidate_is_an_input_error():
    with pytest.raises(InputError, match="num_ctx=70"):
        shorten(QUESTIONS[0], TITLES, replace(server_at("http://127.0.0.1:1"), num_ctx=70))
