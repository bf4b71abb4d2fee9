from dataclasses import replace

import pytest

from stages.errors import InputError
from stages.judge.asking import ask
from stages.judge.openai import OPENAI, Server
from stages.judge.prompt import Question
from stages.judge.registry import find_judge
from tests.judge.openai_server import MODEL, openai_server

QUESTIONS = [Question(user, 10, tuple(range(1, 3 + user % 5))) for user in range(20)]  # five different ones
TITLES = [f"title {item}" for item in range(1, 11)]


def server_at(url: str) -> Server:
    return Server(
        base_url=url, model=MODEL, concurrency=3, timeout=5.0, num_ctx=2048, seed=7, language="en",
        answer_format="json", retry_seconds=0.01,
    )  # fmt: skip


def asked(journals, questions=QUESTIONS, titles=TITLES, options=None, **changes):
    with openai_server(**options or {}) as stand_in:
        server = replace(server_at(stand_in.url), **changes)
        verdicts, statistics = ask(questions, titles, server, journals, 0.05)
        return [verdict.chosen for verdict in verdicts], statistics, stand_in.requests


@pytest.mark.parametrize("answer_format", ["json", "text"])
def test_every_question_is_answered_and_equal_prompts_are_asked_once(tmp_path, answer_format):
    chosen, statistics, requests = asked(tmp_path, answer_format=answer_format)
    assert chosen == [1] * 20
    assert len(requests) == 5
    assert (statistics["model"], statistics["tokens_out"]) == (MODEL, 25)
    for body in requests:
        assert (body["temperature"], body["seed"], body["max_tokens"]) == (0, 7, 64)


def test_answers_of_one_server_and_model_are_journalled(tmp_path):
    with openai_server() as stand_in:
        first = ask(QUESTIONS, TITLES, server_at(stand_in.url), tmp_path, 0.05)
        again = ask(QUESTIONS, TITLES, server_at(stand_in.url + "/"), tmp_path, 0.05)
        assert first == again
        assert len(stand_in.requests) == 5
    asked(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2  # another address may be another model


def test_the_key_of_the_environment_is_sent(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="refuses the key: set the environment's OPENAI_API_KEY"):
        asked(tmp_path, options={"key": "secret"})
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert asked(tmp_path, options={"key": "secret"})[0] == [1] * 20


def test_a_line_break_behind_the_key_is_not_sent(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret\r\n")
    assert asked(tmp_path, options={"key": "secret"})[0] == [1] * 20


@pytest.mark.parametrize("key", ["“secret”", "sec\nret"])
def test_a_key_that_no_header_can_hold_is_one_line(tmp_path, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(InputError, match="OPENAI_API_KEY has characters that no key has"):
        asked(tmp_path)


def test_what_is_no_address_is_named(tmp_path):
    with pytest.raises(InputError, match="openai.base_url=http://gpu:80O0/v1 is no address"):
        ask(QUESTIONS, TITLES, server_at("http://gpu:80O0/v1"), tmp_path, 0.05)


def test_a_server_that_counts_no_tokens_is_a_judge_too(tmp_path):
    chosen, statistics, _ = asked(tmp_path, options={"counts": False})
    assert chosen == [1] * 20
    assert statistics["tokens_in"] == statistics["tokens_out"] == 0


def test_an_absent_server_says_what_to_set(tmp_path):
    with openai_server() as stand_in:
        url = stand_in.url
    with pytest.raises(InputError, match="set openai.base_url or OPENAI_BASE_URL"):
        ask(QUESTIONS, TITLES, server_at(url), tmp_path, 0.05)


def test_an_absent_model_names_those_there_are(tmp_path):
    with pytest.raises(InputError, match=f"no model other, but {MODEL}: set llm=openai:NAME"):
        asked(tmp_path, model="other")


def test_a_server_that_does_not_list_its_models_is_asked_all_the_same(tmp_path):
    assert asked(tmp_path, options={"lists_models": False})[0] == [1] * 20
    with pytest.raises(InputError, match=r"refused a prompt \(404\): The model `other` does not exist"):
        asked(tmp_path, options={"lists_models": False}, model="other")


def test_too_many_requests_are_waited_out_for_the_timeout(tmp_path):
    with pytest.raises(
        InputError, match="no host has answered for 0 s, .* is busy .429: You exceeded your current quota"
    ):
        asked(tmp_path, options={"status": 429}, timeout=0.3)


def test_an_overloaded_service_is_waited_for_like_a_full_queue(tmp_path):
    with pytest.raises(InputError, match="no host has answered for 0 s, .* is busy .529: "):
        asked(tmp_path, options={"status": 529}, timeout=0.3)


@pytest.mark.parametrize("status", [408, 520, 524])
def test_faults_of_a_proxy_are_repeated(tmp_path, status):
    with pytest.raises(InputError, match=f"failed one prompt 6 times .{status} "):
        asked(tmp_path, options={"status": status})


def test_a_prompt_that_the_server_finds_too_long_is_asked_with_fewer_candidates_and_remembered(tmp_path):
    questions = [Question(0, 100, tuple(range(1, 100)))]
    titles = [f"title {item}" for item in range(1, 101)]
    with openai_server(context=400) as stand_in:
        verdicts, statistics = ask(questions, titles, server_at(stand_in.url), tmp_path, 0.05)
        requests = len(stand_in.requests)
        assert ask(questions, titles, server_at(stand_in.url), tmp_path, 0.05) == (verdicts, statistics)
        assert len(stand_in.requests) == requests > 1
    assert statistics["shortened"] == 1
    assert 1 < verdicts[0].chosen < 99


def test_the_address_comes_from_params_then_from_the_environment_then_it_is_openai(monkeypatch, make_settings):
    build, name = find_judge("openai:gpt")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://from.environment/v1")
    assert build(make_settings(name, base_url="http://from.params/v1")).server.base_url == "http://from.params/v1"
    assert build(make_settings(name)).server.base_url == "http://from.environment/v1"
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert build(make_settings(name)).server.base_url == OPENAI
