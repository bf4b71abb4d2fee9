"""What all language models share, held against a stand-in that has the limits of a real Ollama server."""

import json
import os
import signal
import threading
import time
from dataclasses import replace

import pytest

from stages.errors import InputError
from stages.judge.asking import EARLY_ANSWERS, ask
from stages.judge.ollama import Server
from stages.judge.prompt import Question
from tests.judge.ollama_server import DIGEST, MODEL, Fault, chat_reply, gave_up_reply, ollama_server

MANY = [Question(user, 1000, (user + 1, user + 2)) for user in range(600)]
TITLES = [f"title {item}" for item in range(1, 1001)]
EMOJI = ["👩‍🍳🍜🥟🔥" * 9] * 12  # 63 code points each
ELEVEN = [Question(0, 12, tuple(range(1, 12)))]


def server_at(*urls: str, **changes) -> Server:
    server = Server(
        hosts=urls, model=MODEL, concurrency=3, timeout=5.0, num_ctx=2048, keep_alive="5m", seed=7, language="en",
        answer_format="json", retry_seconds=0.01,
    )  # fmt: skip
    return replace(server, **changes)


def many_tokens(text: str) -> int:
    """A tokenizer that has no tokens for emoji: a token for each byte of them, and for four characters of the rest."""
    ascii_count = len(text.encode("ascii", "ignore"))
    return ascii_count // 4 + len(text.encode()) - ascii_count


def journal_lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{DIGEST[:16]}.jsonl").read_text().splitlines() if line]


def text_of(body) -> str:
    return body["messages"][0]["content"]


# Answers that the server gives up on


def test_an_answer_that_the_server_gave_up_on_is_one_invalid_answer_and_journalled(tmp_path):
    repeats = gave_up_reply("10-1-1-1-1-1-1-1-1-1-1-1")
    with ollama_server(lambda number, body: repeats if number == 2 else None) as stand_in:
        server = server_at(stand_in.url, answer_format="text")
        verdicts, _ = ask(MANY[:30], TITLES, server, tmp_path, 0.05)
        assert len(stand_in.requests) == 30
        assert ask(MANY[:30], TITLES, server, tmp_path, 0.05)[0] == verdicts
        assert len(stand_in.requests) == 30
    [invalid] = [verdict for verdict in verdicts if not verdict.valid]
    assert invalid.text.startswith("10-1-1")
    assert "gave up" in invalid.fault


def test_a_readable_answer_that_is_not_done_is_invalid_too(tmp_path):
    with ollama_server(lambda number, body: gave_up_reply('{"id": 1}')) as stand_in, pytest.raises(InputError) as error:
        ask(MANY[:1], TITLES, server_at(stand_in.url), tmp_path, 0.05)
    assert "1 of 1 answers" in str(error.value)


# Prompts that are too long


@pytest.mark.parametrize("knows_truncate", [True, False])
def test_a_prompt_that_the_server_refuses_or_cuts_is_asked_with_fewer_candidates_and_counted(tmp_path, knows_truncate):
    with ollama_server(tokenize=many_tokens, knows_truncate=knows_truncate) as stand_in:
        server = server_at(stand_in.url)
        verdicts, statistics = ask(ELEVEN, EMOJI, server, tmp_path, 0.05)
        asked = len(stand_in.requests)
        assert many_tokens(text_of(stand_in.requests[-1])) < 2048 <= many_tokens(text_of(stand_in.requests[0]))
        assert ask(ELEVEN, EMOJI, server, tmp_path, 0.05) == (verdicts, statistics)
        assert len(stand_in.requests) == asked
    assert statistics["shortened"] == 1
    assert 1 < verdicts[0].chosen < 12
    assert [line["too_long"] for line in journal_lines(tmp_path)][-2:] == [True, False]


def test_a_larger_context_comes_before_fewer_candidates(tmp_path):
    with ollama_server(tokenize=many_tokens) as stand_in:
        verdicts, statistics = ask(ELEVEN, EMOJI, server_at(stand_in.url, num_ctx=8192), tmp_path, 0.05)
        assert stand_in.loads == [2048, 4096]
    assert statistics["shortened"] == 0
    assert verdicts[0].chosen == 1


def test_an_answer_that_does_not_fit_behind_its_prompt_shortens_the_prompt(tmp_path):
    with ollama_server(tokenize=lambda text: 2045 if '"id": 1,' in text else 100) as stand_in:
        verdicts, _ = ask(ELEVEN, EMOJI, server_at(stand_in.url), tmp_path, 0.05)
    assert verdicts[0].chosen > 1


def test_a_whole_prompt_of_half_the_context_is_not_taken_for_a_cut_one(tmp_path):
    with ollama_server(tokenize=lambda text: 1026 if '"id": 1,' in text and "Answer with" in text else 500) as stand_in:
        verdicts, statistics = ask(ELEVEN, TITLES, server_at(stand_in.url), tmp_path, 0.05)
        assert len(stand_in.requests) == 2
    assert (verdicts[0].chosen, statistics["shortened"]) == (1, 0)


def test_a_system_text_that_nobody_counted_only_enlarges_the_context(tmp_path):
    with ollama_server(tokenize=lambda text: 2500 + len(text) // 4) as stand_in:
        _, statistics = ask(MANY[:50], TITLES, server_at(stand_in.url, num_ctx=8192), tmp_path, 0.05)
        assert stand_in.loads == [2048, 4096]
    assert statistics["shortened"] == 0


def test_titles_are_cut_when_two_of_them_are_too_long(tmp_path):
    titles = ["長" * 10_000, "短" * 10_000]
    with ollama_server(tokenize=lambda text: 3 * len(text)) as stand_in:
        verdicts, statistics = ask([Question(0, 2, (1,))], titles, server_at(stand_in.url), tmp_path, 0.05)
    assert (verdicts[0].chosen, statistics["shortened"]) == (1, 1)


def test_a_model_that_reads_too_little_is_refused_with_advice_that_helps(tmp_path):
    with ollama_server(context=64) as stand_in, pytest.raises(InputError) as error:
        ask(MANY, TITLES, server_at(stand_in.url), tmp_path, 0.05)
    assert "reads 64 tokens at most" in str(error.value)
    assert "use a model with a longer context" in str(error.value)


def test_a_num_ctx_that_is_too_small_is_to_be_raised(tmp_path):
    with ollama_server() as stand_in, pytest.raises(InputError, match=r"raise ollama\.num_ctx"):
        ask(MANY, TITLES, server_at(stand_in.url, num_ctx=64), tmp_path, 0.05)


# One context for a run


def test_one_context_serves_short_and_long_prompts_so_that_the_model_is_loaded_once(tmp_path):
    questions = [Question(user, 1000, tuple(range(1, 2 + user))) for user in range(150)]
    with ollama_server() as stand_in:
        ask(questions, TITLES, server_at(stand_in.url, num_ctx=100_000), tmp_path, 0.05)
        assert stand_in.loads == [2048]  # the longest prompt has 1,400 tokens


def test_a_model_that_is_loaded_with_a_larger_context_stays_loaded(tmp_path, capsys):
    with ollama_server(loaded=16384) as stand_in:
        ask(MANY[:5], TITLES, server_at(stand_in.url), tmp_path, 0.05)
        assert stand_in.loads == []
    assert "waits" not in capsys.readouterr().out


def test_a_model_that_is_loaded_with_a_smaller_context_may_be_another_run_s(tmp_path, capsys):
    with ollama_server(loaded=1024) as stand_in:
        ask(MANY[:5], TITLES, server_at(stand_in.url), tmp_path, 0.05)
        assert stand_in.loads == [2048]
    assert "with a context of 1024 tokens and this run needs 2048: if another run uses it" in capsys.readouterr().out


# Invalid answers


def test_the_run_stops_when_the_first_answers_are_nearly_all_invalid_and_shows_one_whole(tmp_path):
    words = "I would say that the most similar video is number two, " * 5
    with ollama_server(lambda number, body: chat_reply(words)) as stand_in:
        for _ in range(2):  # the second time, the journal is enough
            with pytest.raises(InputError, match=f"{EARLY_ANSWERS} of the first {EARLY_ANSWERS} answers") as error:
                ask(MANY, TITLES, server_at(stand_in.url), tmp_path, 0.05)
            assert repr(words) in str(error.value)
            assert "try pairs.format=text, ollama.think=always or another llm" in str(error.value)
            assert EARLY_ANSWERS <= len(stand_in.requests) < EARLY_ANSWERS + 3  # the others were in flight


def test_some_invalid_answers_at_first_do_not_stop_the_run(tmp_path):
    with ollama_server(lambda number, body: chat_reply("no") if number <= 30 else None) as stand_in:
        verdicts, _ = ask(MANY, TITLES, server_at(stand_in.url), tmp_path, 0.05)
        assert len(stand_in.requests) == 600
    assert sum(not verdict.valid for verdict in verdicts) == 30


def test_who_accepts_invalid_answers_is_not_stopped_early(tmp_path):
    with ollama_server(lambda number, body: chat_reply("no")) as stand_in:
        verdicts, _ = ask(MANY[:60], TITLES, server_at(stand_in.url), tmp_path, 1.0)
    assert not any(verdict.valid for verdict in verdicts)


# Models that think


def test_a_model_that_is_silent_without_thinking_is_told_to_think(tmp_path, capsys):
    with ollama_server(silent=True) as stand_in:
        verdicts, statistics = ask(MANY, TITLES, server_at(stand_in.url), tmp_path, 0.05)
        assert [body["think"] for body in stand_in.requests] == [False] + [True] * 600
        assert {body["options"]["num_predict"] for body in stand_in.requests[1:]} == {64 + 1024}
        assert "gives no answer without thinking" in capsys.readouterr().out
        assert ask(MANY, TITLES, server_at(stand_in.url), tmp_path, 0.05) == (verdicts, statistics)
        assert len(stand_in.requests) == 601
    assert all(verdict.valid for verdict in verdicts)


def test_a_model_that_is_silent_and_may_not_think_stops_the_run_with_the_mend(tmp_path):
    with ollama_server(silent=True) as stand_in:
        with pytest.raises(InputError, match=r"one was '' .* ollama\.think=always"):
            ask(MANY, TITLES, server_at(stand_in.url, think="never"), tmp_path, 0.05)
        assert len(stand_in.requests) < 50


def test_a_model_that_answers_without_thinking_is_not_told_to_think(tmp_path):
    with ollama_server() as stand_in:
        ask(MANY[:9], TITLES, server_at(stand_in.url), tmp_path, 0.05)
        assert {body["think"] for body in stand_in.requests} == {False}


def test_a_model_that_cannot_think_is_refused_when_it_has_to(tmp_path):
    with (
        ollama_server(capabilities=("completion",)) as stand_in,
        pytest.raises(InputError, match="not support thinking"),
    ):
        ask(MANY[:9], TITLES, server_at(stand_in.url, think="always"), tmp_path, 0.05)


# Hosts


def test_a_dead_host_does_not_delay_the_end(tmp_path):
    with ollama_server() as lives, ollama_server() as dies:

        def die(number, body):
            threading.Thread(target=lambda: (dies.shutdown(), dies.server_close())).start()
            time.sleep(0.2)
            return Fault.DROP

        dies.behaviour = die
        begin = time.monotonic()
        verdicts, _ = ask(
            MANY[:20], TITLES, server_at(dies.url, lives.url, concurrency=1, retry_seconds=60.0), tmp_path, 0.05
        )
        assert time.monotonic() - begin < 20
    assert all(verdict.valid for verdict in verdicts)


# Interruption


def test_an_interruption_ends_the_run_at_once_and_keeps_the_answers(tmp_path):
    def behave(number, body):
        if number > 5:
            if number == 6:
                os.kill(os.getpid(), signal.SIGINT)
            return Fault.HANG
        return None

    with ollama_server(behave) as stand_in:
        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            ask(MANY, TITLES, server_at(stand_in.url, concurrency=1, timeout=60.0), tmp_path, 0.05)
        assert time.monotonic() - begin < 5
    assert len(journal_lines(tmp_path)) == 5
