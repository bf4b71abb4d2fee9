import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stages.errors import InputError
from stages.judge.ollama import Server, ask
from stages.judge.prompt import Question
from tests.judge.ollama_server import (
    BUSY,
    CRASHED,
    DIGEST,
    HALF_JSON,
    MODEL,
    PASSING_FAULTS,
    Fault,
    OllamaServer,
    chat_reply,
    error_reply,
    ollama_server,
)

QUESTIONS = [Question(user, 10, tuple(range(1, 3 + user % 5))) for user in range(20)]  # five different ones
TITLES = [f"title {item}" for item in range(1, 11)]


def server_at(*urls: str) -> Server:
    return Server(
        hosts=urls, model=MODEL, concurrency=3, timeout=5.0, num_ctx=2048, keep_alive="5m", seed=7, language="en",
        answer_format="json", retry_seconds=0.01,
    )  # fmt: skip


def asked(journals: Path, behaviour=None, max_invalid=0.05, **changes):
    """The chosen items, the facts, and the requests that the server got."""
    with ollama_server(behaviour) as stand_in:
        server = replace(server_at(stand_in.url), **changes)
        verdicts, facts = ask(QUESTIONS, TITLES, server, journals, max_invalid)
        return [verdict.chosen for verdict in verdicts], facts, stand_in.requests


def journal_in(folder: Path) -> Path:
    return folder / f"{DIGEST[:16]}.jsonl"


@pytest.mark.parametrize("answer_format", ["json", "text"])
def test_every_question_is_answered_and_equal_prompts_are_asked_once(tmp_path, answer_format):
    chosen, facts, requests = asked(tmp_path, answer_format=answer_format)
    assert chosen == [1] * 20
    assert len(requests) == 5
    assert facts == {
        "model": MODEL, "digest": DIGEST, "shortened": 0, "tokens_out": 25, "tokens_out_per_second": 100.0,
        "tokens_in": sum(len(body["messages"][0]["content"]) // 4 for body in requests),
    }  # fmt: skip


def test_a_request_is_repeatable_and_does_not_think(tmp_path):
    _, _, requests = asked(tmp_path)
    for body in requests:
        assert body["options"] == {"temperature": 0, "seed": 7, "num_predict": 64, "num_ctx": 2048}
        assert body["think"] is False
        assert body["truncate"] is False
        assert body["stream"] is False
        assert body["keep_alive"] == "5m"


def test_no_more_prompts_are_in_flight_than_concurrency_allows(tmp_path):
    flying, most, lock = 0, 0, threading.Lock()

    def behave(number, body):
        nonlocal flying, most
        with lock:
            flying += 1
            most = max(most, flying)
        time.sleep(0.05)
        with lock:
            flying -= 1

    asked(tmp_path, behave, concurrency=3)
    assert most == 3


def test_journalled_answers_are_not_asked_again_and_give_the_same_statistics(tmp_path, capsys):
    first, facts, _ = asked(tmp_path)
    assert "5 prompts asked, 0 answers reused" in capsys.readouterr().out
    again, facts_again, requests = asked(tmp_path)
    assert requests == []
    assert (again, facts_again) == (first, facts)
    assert "0 prompts asked, 5 answers reused" in capsys.readouterr().out


@pytest.mark.parametrize("changes", [{"seed": 8}, {"num_ctx": 4096}, {"answer_format": "text"}, {"language": "zh"}])
def test_another_option_or_wording_asks_anew(tmp_path, changes):
    asked(tmp_path)
    _, _, requests = asked(tmp_path, **changes)
    assert len(requests) == 5


@pytest.mark.parametrize("changes", [{"concurrency": 1}, {"timeout": 9.0}, {"keep_alive": "1h"}])
def test_anything_else_does_not(tmp_path, changes):
    asked(tmp_path)
    _, _, requests = asked(tmp_path, **changes)
    assert requests == []


@pytest.mark.parametrize("fault", PASSING_FAULTS)
def test_a_passing_fault_is_asked_again(tmp_path, fault):
    chosen, _, requests = asked(tmp_path, lambda number, body: fault if number <= 3 else None, timeout=0.5)
    assert chosen == [1] * 20
    assert len(requests) == 8


@pytest.mark.parametrize("fault", [CRASHED, HALF_JSON, (200, "[1]"), (200, "{}"), Fault.CUT, Fault.DROP])
def test_a_lasting_fault_ends_in_one_line_and_keeps_what_was_answered(tmp_path, fault):
    with pytest.raises(InputError, match="failed one prompt 6 times .* run the same command again") as error:
        asked(tmp_path, lambda number, body: fault if number > 3 else None, concurrency=1)
    assert "\n" not in str(error.value)
    assert len(journal_in(tmp_path).read_text().splitlines()) == 3


def test_a_model_that_is_too_slow_is_told_with_the_timeout(tmp_path):
    with pytest.raises(InputError, match="6 times .no whole answer within 0.2 s, the timeout in params.yaml"):
        asked(tmp_path, lambda number, body: Fault.HANG, timeout=0.2)


def test_a_queue_that_stays_full_ends_after_the_timeout(tmp_path):
    with pytest.raises(InputError, match=r"no host has answered for 0 s, .* is busy \(503: .*\)"):
        asked(tmp_path, lambda number, body: BUSY if number > 3 else None, concurrency=1, timeout=0.3)
    assert len(journal_in(tmp_path).read_text().splitlines()) == 3


def test_a_refused_request_is_not_repeated(tmp_path):
    seen = []
    with pytest.raises(InputError, match="400"):
        asked(tmp_path, lambda number, body: seen.append(1) or error_reply(400, "bad option"), concurrency=1)
    assert len(seen) == 1


def test_a_server_that_dies_and_returns_is_waited_for(tmp_path, capsys):
    with ollama_server() as first:
        port = first.server_address[1]

        def dies(number, body):
            if number == 3:
                threading.Thread(target=lambda: (first.shutdown(), first.server_close())).start()
                time.sleep(0.2)
                return Fault.DROP
            return None

        first.behaviour = dies
        returned = []

        def come_back():
            time.sleep(1.0)
            returned.append(OllamaServer(port=port))
            returned[0].serve_forever(0.02)

        threading.Thread(target=come_back, daemon=True).start()
        verdicts, _ = ask(QUESTIONS, TITLES, replace(server_at(first.url), concurrency=1), tmp_path, 0.05)
    returned[0].shutdown()
    returned[0].server_close()
    assert [verdict.chosen for verdict in verdicts] == [1] * 20
    assert len(first.requests) + len(returned[0].requests) == 6  # the one in flight twice
    assert "does not answer" in capsys.readouterr().out


def test_when_one_of_several_hosts_dies_the_others_answer(tmp_path):
    with ollama_server() as lives, ollama_server() as dies:

        def drop(number, body):
            threading.Thread(target=lambda: (dies.shutdown(), dies.server_close())).start()
            time.sleep(0.2)
            return Fault.DROP

        dies.behaviour = drop
        verdicts, _ = ask(QUESTIONS, TITLES, replace(server_at(dies.url, lives.url), concurrency=1), tmp_path, 0.05)
    assert [verdict.chosen for verdict in verdicts] == [1] * 20
    assert len(lives.requests) == 5


@pytest.mark.parametrize("content", ['{"id": 99}', "", "the second one", '{"id": ' + "[" * 3000])
def test_too_many_invalid_answers_fail_with_an_example_and_keep_the_journal(tmp_path, content):
    with pytest.raises(InputError, match="20 of 20 answers") as error:
        asked(tmp_path, lambda number, body: chat_reply(content), think="never")
    assert repr(content)[:80] in str(error.value)
    assert len(journal_in(tmp_path).read_text().splitlines()) == 5


def test_a_few_invalid_answers_are_counted(tmp_path):
    with ollama_server(lambda number, body: chat_reply("no") if number == 1 else None) as stand_in:
        verdicts, _ = ask(QUESTIONS, TITLES, replace(server_at(stand_in.url), concurrency=1), tmp_path, 0.3)
    invalid = [verdict for verdict in verdicts if not verdict.valid]
    assert len(invalid) == 4  # one prompt, asked for four users
    assert {verdict.text for verdict in invalid} == {"no"}
    assert [verdict.chosen for verdict in verdicts].count(None) == 4


def test_an_absent_server_says_how_to_start_it(tmp_path):
    with ollama_server() as stand_in:
        url = stand_in.url
    with pytest.raises(InputError, match="ollama serve"):
        ask(QUESTIONS, TITLES, server_at(url), tmp_path, 0.05)


@pytest.mark.parametrize("status", [302, 401, 502])
def test_a_server_that_lets_nobody_through_is_not_called_absent(tmp_path, status):
    said = f"answers {status}, not as Ollama does: start Ollama there, or set ollama.hosts"
    with ollama_server(version=(status, "no")) as stand_in, pytest.raises(InputError, match=said):
        ask(QUESTIONS, TITLES, server_at(stand_in.url), tmp_path, 0.05)


def test_models_without_a_digest_do_not_share_answers(tmp_path):
    names = {MODEL: "", "other:7b": ""}
    with ollama_server(models=names) as stand_in:
        for name in names:
            ask(QUESTIONS, TITLES, replace(server_at(stand_in.url), model=name), tmp_path, 0.05)
        assert len(stand_in.requests) == 10


def test_an_absent_model_says_how_to_get_it(tmp_path):
    with pytest.raises(InputError, match="ollama pull other:7b"):
        asked(tmp_path, model="other:7b")


def test_several_hosts_share_the_prompts(tmp_path):
    with ollama_server() as one, ollama_server() as two:
        verdicts, _ = ask(QUESTIONS, TITLES, server_at(one.url, two.url), tmp_path, 0.05)
    assert [verdict.chosen for verdict in verdicts] == [1] * 20
    assert len(one.requests) + len(two.requests) == 5
    assert one.requests
    assert two.requests
