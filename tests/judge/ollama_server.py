"""A loopback HTTP server that speaks Ollama's protocol, checks what it is sent, and misbehaves when told to.

`python -m tests.judge.ollama_server --port 11999 --delay 0.05 --faults 0.02` runs it as a process of its own.
"""

import argparse
import hashlib
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODEL, DIGEST, VERSION, CONTEXT = "judge:1b", "a" * 64, "0.13.0", 32768

Reply = tuple[int, str]  # HTTP status and body


class Fault(Enum):
    """What no status tells."""

    HANG = "takes the request and never answers"
    CUT = "closes the connection in the middle of an answer"
    DROP = "closes the connection without an answer"


Behaviour = Callable[[int, dict[str, Any]], Reply | Fault | None]  # the request's number and body → None: answer well

BUSY: Reply = (503, json.dumps({"error": "server busy, please try again.  maximum pending requests exceeded"}))
CRASHED: Reply = (500, json.dumps({"error": "model runner has unexpectedly stopped"}))
HALF_JSON: Reply = (200, '{"model": "judge:1b", "mess')
PASSING_FAULTS = [BUSY, CRASHED, HALF_JSON, Fault.HANG, Fault.CUT, Fault.DROP]


def candidates(body: dict[str, Any]) -> list[int]:
    """The ids in the prompt, target first."""
    return [
        json.loads(line)["id"] for line in body["messages"][0]["content"].splitlines() if line.startswith('{"id": ')
    ]


def chat_reply(content: str, **changes: Any) -> Reply:
    """A whole answer of /api/chat as the real server words it."""
    answer = {
        "model": MODEL,
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": content},
        "done": True,
        "done_reason": "stop",
        "total_duration": 60_000_000,
        "load_duration": 1_000_000,
        "prompt_eval_count": 40,
        "prompt_eval_duration": 10_000_000,
        "eval_count": 5,
        "eval_duration": 50_000_000,
    }
    return 200, json.dumps(answer | changes)


class OllamaServer(ThreadingHTTPServer):
    """Answers each question with its first candidate."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        port: int = 0,
        context: int = CONTEXT,
        models: dict[str, str] = {MODEL: DIGEST},  # noqa: B006  digests by tag
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.behaviour = behaviour or (lambda number, body: None)
        self.context = context
        self.models = models
        self.requests: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of a server's errors."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as Go's server: no waiting for the client's acknowledgement
    server: OllamaServer

    def do_GET(self) -> None:
        if self.path == "/api/version":
            return self.reply(200, json.dumps({"version": VERSION}))
        if self.path == "/api/tags":
            models = [
                {"name": name, "model": name, "digest": digest, "size": 1, "details": {}}
                for name, digest in self.server.models.items()
            ]
            return self.reply(200, json.dumps({"models": models}))
        return self.reply(404, "404 page not found")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path not in ("/api/chat", "/api/show"):
            return self.reply(404, "404 page not found")
        if body["model"] not in self.server.models:
            return self.reply(404, json.dumps({"error": f"model '{body['model']}' not found"}))
        if self.path == "/api/show":
            facts = {"general.architecture": "llama", "llama.context_length": self.server.context}
            return self.reply(200, json.dumps({"model_info": facts, "capabilities": ["completion", "thinking"]}))
        with self.server.lock:
            self.server.requests.append(body)
            number = len(self.server.requests)
        reply = self.server.behaviour(number, body) or self.answer(body)
        return self.misbehave(reply) if isinstance(reply, Fault) else self.reply(*reply)

    def answer(self, body: dict[str, Any]) -> Reply:
        target, first, *_ = candidates(body)
        if "format" in body:
            assert first in body["format"]["properties"]["id"]["enum"]
            return chat_reply(json.dumps({"id": first}))
        assert re.search(rf"{target}-ID", body["messages"][0]["content"])
        return chat_reply(f"{target}-{first}")

    def reply(self, status: int, body: str) -> None:
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def misbehave(self, fault: Fault) -> None:
        self.close_connection = True
        if fault is Fault.HANG:
            self.server.closing.wait()
        if fault is Fault.CUT:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"model": ')

    def log_message(self, *args: Any) -> None:
        """Keep the tests' output quiet."""


@contextmanager
def ollama_server(behaviour: Behaviour | None = None, **options: Any) -> Iterator[OllamaServer]:
    """A running server, gone after the block."""
    server = OllamaServer(behaviour, **options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def slow_and_faulty(delay: float, share: float, log: Path | None) -> Behaviour:
    """Answers after `delay` seconds, a share of the requests with a fault instead; `log` gets a line an answer."""

    def behave(number: int, body: dict[str, Any]) -> Reply | Fault | None:
        if random.random() < share:
            return random.choice(PASSING_FAULTS)
        time.sleep(delay)
        if log:
            digest = hashlib.sha256(body["messages"][0]["content"].encode()).hexdigest()
            with log.open("a") as file:
                file.write(f"{digest}\n")
        return None

    return behave


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()
    behaviour = slow_and_faulty(arguments.delay, arguments.faults, arguments.log)
    server = OllamaServer(behaviour, arguments.port)
    print(server.url, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
