"""How busy the judge keeps a server: `python -m tests.judge.throughput`, against a stand-in that answers in 50 ms."""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from stages.judge.ollama import Server, ask
from stages.judge.prompt import Question
from tests.judge.ollama_server import MODEL

DELAY = 0.05  # seconds an answer
IN_FLIGHT = 4
PROMPTS = 200


def seconds_for(server: Server, prompts: int) -> float:
    titles = [f"title {item}" for item in range(1, 2 * prompts + 30)]
    questions = [Question(n, n + 20, tuple(range(n + 1, n + 20))) for n in range(prompts)]
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        ask(questions, titles, server, Path(folder), 0.0)
        return time.monotonic() - begin


def main() -> None:
    command = [sys.executable, "-m", "tests.judge.ollama_server", "--delay", str(DELAY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip()
            serial = Server((url,), MODEL, 1, 60.0, 8192, "5m", 1, "en", "json")
            one = seconds_for(serial, PROMPTS)
            several = seconds_for(replace(serial, concurrency=IN_FLIGHT), PROMPTS * IN_FLIGHT)
        finally:
            process.kill()
    facts = {
        "serial_overhead": one / (PROMPTS * DELAY) - 1,  # of the wall time, beyond the server's own
        "in_flight": IN_FLIGHT,
        "throughput_to_serial": PROMPTS * IN_FLIGHT / several / (PROMPTS / one),
    }
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
