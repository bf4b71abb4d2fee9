"""A loopback HTTP server that speaks Ollama's protocol, checks what it is sent, and misbehaves when told to."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL, DIGEST, VERSION = "judge:1b", "a" * 64, "0.13.0"

Reply = tuple[int, str]  # HTTP status and body
Behaviour = Callable[[int, dict[str, Any]], Reply | None]  # the request's number and body → None: answer well


def candidates(body: dict[str, Any]) -> list[int]:
    """The ids in the prompt, target first."""
    return [
        json.loads(line)["id"] for line in body["messages"][0]["content"].splitlines() if line.startswith('{"id": ')
    ]


def chat_reply(content: str) -> Reply:
    """A whole answer of /api/chat as the real server words it."""
    return 200, json.dumps(
        {
            "model": MODEL,
            "created_at": "2026-01-01T00:00:00Z",
            "message": {"role": "assistant", "content": content},
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 40,
            "eval_count": 5,
        }
    )


class OllamaServer(ThreadingHTTPServer):
    """Answers each question with its first candidate."""

    daemon_threads = True

    def __init__(self, behaviour: Behaviour | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = behaviour or (lambda number, body: None)
        self.requests: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: OllamaServer

    def do_GET(self) -> None:
        if self.path == "/api/version":
            return self.reply(200, json.dumps({"version": VERSION}))
        if self.path == "/api/tags":
            model = {"name": MODEL, "model": MODEL, "digest": DIGEST, "size": 1, "details": {}}
            return self.reply(200, json.dumps({"models": [model]}))
        return self.reply(404, "404 page not found")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/api/chat":
            return self.reply(404, "404 page not found")
        if body["model"] != MODEL:
            return self.reply(404, json.dumps({"error": f"model '{body['model']}' not found"}))
        with self.server.lock:
            self.server.requests.append(body)
            number = len(self.server.requests)
        return self.reply(*(self.server.behaviour(number, body) or self.answer(body)))

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

    def log_message(self, *args: Any) -> None:
        """Keep the tests' output quiet."""


@contextmanager
def ollama_server(behaviour: Behaviour | None = None) -> Iterator[OllamaServer]:
    """A running server, gone after the block."""
    server = OllamaServer(behaviour)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
