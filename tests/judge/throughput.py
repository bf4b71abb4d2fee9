"""Overhead and throughput of the judge: `python -m tests.judge.throughput`, on a stand-in that answers in 50 ms.

Overhead: the time over that of a bare HTTP client that sends the same requests one after another. Each figure is the
median of several rounds.
"""

import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from stages.judge.ollama import Server, ask
from stages.judge.prompt import Question, answer_schema, render
from tests.judge.ollama_server import MODEL

DELAY = 0.05  # seconds an answer
IN_FLIGHT = 4
PROMPTS = 300
ROUNDS = 5


def questions_and_titles(prompts: int) -> tuple[list[Question], list[str]]:
    """Different questions with twenty candidates each."""
    titles = [f"title {item}" for item in range(1, 2 * prompts + 30)]
    return [Question(n, n + 20, tuple(range(n + 1, n + 20))) for n in range(prompts)], titles


def judge_seconds(server: Server, prompts: int) -> float:
    questions, titles = questions_and_titles(prompts)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        ask(questions, titles, server, Path(folder), 0.0)
        return time.monotonic() - begin


def bare_seconds(server: Server, prompts: int) -> float:
    """The same prompts through one connection of the standard library, without a journal."""
    questions, titles = questions_and_titles(prompts)
    connection = http.client.HTTPConnection(server.hosts[0].removeprefix("http://"))
    bodies = [
        {
            "model": MODEL, "stream": False, "format": answer_schema(question), "think": False,
            "options": {"temperature": 0, "seed": server.seed, "num_predict": 64, "num_ctx": 2048},
            "messages": [{"role": "user", "content": render(question, titles, "en", "json")}],
        }
        for question in questions
    ]  # fmt: skip
    begin = time.monotonic()
    for body in bodies:
        connection.request("POST", "/api/chat", json.dumps(body), {"Content-Type": "application/json"})
        json.loads(connection.getresponse().read())
    return time.monotonic() - begin


def measure(serial: Server) -> tuple[float, float]:
    """Overhead over the bare client, and the throughput of several in flight over that of one."""
    bare = bare_seconds(serial, PROMPTS)
    one = judge_seconds(serial, PROMPTS)
    several = judge_seconds(replace(serial, concurrency=IN_FLIGHT), PROMPTS * IN_FLIGHT)
    return one / bare - 1, IN_FLIGHT * one / several


def main() -> None:
    command = [sys.executable, "-m", "tests.judge.ollama_server", "--delay", str(DELAY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip()
            serial = Server((url,), MODEL, 1, 60.0, 8192, "5m", 1, "en", "json")
            overheads, throughputs = zip(*(measure(serial) for _ in range(ROUNDS)), strict=True)
        finally:
            process.kill()
    facts = {
        "overhead": statistics.median(overheads),
        "in_flight": IN_FLIGHT,
        "throughput_to_serial": statistics.median(throughputs),
    }
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
