"""A stand-in for an Ollama server on the loopback: the protocol and the limits of v0.32, and faults when told to.

`python -m tests.judge.ollama_server --port 11999 --delay 0.05 --faults 0.02` runs it as a process of its own.
"""

import argparse
import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODEL, DIGEST, VERSION, CONTEXT = "judge:1b", "a" * 64, "0.32.14", 32768
KEEP = 4  # tokens of a prompt's beginning that are left when it is cut

Reply = tuple[int, str]  # HTTP status and body


class Fault(Enum):
    """A failure that has no HTTP status."""

    HANG = "takes the request and never answers"
    CUT = "closes the connection in the middle of an answer"
    DROP = "closes the connection without an answer"


Behaviour = Callable[
    [int, dict[str, Any]], Reply | Fault | None
]  # the request's number and body → reply; None: the right answer

RUNNING: Reply = (200, json.dumps({"version": VERSION}))
BUSY: Reply = (503, '{"error": "server busy, please try again.  maximum pending requests exceeded"}')
CRASHED: Reply = (500, '{"error": "model runner has unexpectedly stopped"}')
HALF_JSON: Reply = (200, '{"model": "judge:1b", "mess')
PASSING_FAULTS = [BUSY, CRASHED, HALF_JSON, Fault.HANG, Fault.CUT, Fault.DROP]


def candidates(body: dict[str, Any]) -> list[int]:
    """The ids in the prompt, target first."""
    return [
        json.loads(line)["id"] for line in body["messages"][0]["content"].splitlines() if line.startswith('{"id": ')
    ]


def error_reply(status: int, message: str) -> Reply:
    return status, json.dumps({"error": message})


def too_long_reply(tokens: int, num_ctx: int) -> Reply:
    """Ollama passes on the runner's own JSON as a text."""
    message = f"request ({tokens} tokens) exceeds the available context size ({num_ctx} tokens), try increasing it"
    error = {"code": 400, "message": message, "type": "exceed_context_size_error", "n_prompt_tokens": tokens}
    return error_reply(400, json.dumps({"error": error | {"n_ctx": num_ctx}}))


def gave_up_reply(content: str) -> Reply:
    """The answer after a token was repeated thirty times: not done, and without counts."""
    answer = {"model": MODEL, "created_at": "2026-01-01T00:00:00Z", "done": False}
    return 200, json.dumps(answer | {"message": {"role": "assistant", "content": content}})


def chat_reply(content: str, **changes: Any) -> Reply:
    """A whole answer of /api/chat, as the real server words it."""
    answer: dict[str, Any] = {
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
    """Answers each question with its first candidate. One model is loaded at a time, with the context last asked for.

    models: digests by name. tokenize: tokens of a prompt. knows_truncate: whether `truncate: false` is heeded, as from
    Ollama 0.12.5 on. silent: gives no content when told not to think, as gpt-oss. loaded: a context that another client
    has loaded the model with. version: the reply to /api/version.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        port: int = 0,
        context: int = CONTEXT,
        models: dict[str, str] = {MODEL: DIGEST},  # noqa: B006
        tokenize: Callable[[str], int] = lambda text: len(text) // 4,
        knows_truncate: bool = True,
        capabilities: tuple[str, ...] = ("completion", "thinking"),
        silent: bool = False,
        loaded: int | None = None,
        version: Reply = RUNNING,
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.behaviour = behaviour or (lambda number, body: None)
        self.context = context
        self.models = models
        self.tokenize = tokenize
        self.knows_truncate = knows_truncate
        self.capabilities = capabilities
        self.silent = silent
        self.loaded = loaded
        self.version = version
        self.loads: list[int] = []  # the contexts that the model was loaded with, in order
        self.requests: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do not report clients that went away."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as Go's server does
    server: OllamaServer

    def do_GET(self) -> None:
        if self.path == "/api/version":
            return self.reply(*self.server.version)
        if self.path == "/api/tags":
            models = [
                {"name": name, "model": name, "digest": digest, "size": 1, "details": {}}
                for name, digest in self.server.models.items()
            ]
            return self.reply(200, json.dumps({"models": models}))
        if self.path == "/api/ps":
            name, digest = next(iter(self.server.models.items()))
            loaded = {"name": name, "model": name, "digest": digest, "context_length": self.server.loaded}
            return self.reply(200, json.dumps({"models": [loaded] if self.server.loaded else []}))
        return self.reply(404, "404 page not found")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path not in ("/api/chat", "/api/show"):
            return self.reply(404, "404 page not found")
        if body["model"] not in self.server.models:
            return self.reply(*error_reply(404, f"model '{body['model']}' not found"))
        if self.path == "/api/show":
            facts = {"general.architecture": "llama", "llama.context_length": self.server.context}
            shown = {"model_info": facts, "capabilities": list(self.server.capabilities)}
            return self.reply(200, json.dumps(shown))
        if body.get("think") and "thinking" not in self.server.capabilities:
            return self.reply(*error_reply(400, f'"{body["model"]}" does not support thinking'))
        num_ctx = min(body["options"]["num_ctx"], self.server.context)
        with self.server.lock:
            self.server.requests.append(body)
            number = len(self.server.requests)
            if self.server.loaded != num_ctx:
                self.server.loaded = num_ctx
                self.server.loads.append(num_ctx)
        reply = self.server.behaviour(number, body) or self.answer(body)
        return self.misbehave(reply) if isinstance(reply, Fault) else self.reply(*reply)

    def answer(self, body: dict[str, Any]) -> Reply:
        text = body["messages"][0]["content"]
        num_ctx = min(body["options"]["num_ctx"], self.server.context)
        tokens = self.server.tokenize(text)
        if tokens >= num_ctx:
            if self.server.knows_truncate and body.get("truncate") is False:
                return too_long_reply(tokens, num_ctx)
            tokens = num_ctx - (num_ctx - KEEP) // 2  # cut, and no word about it
        if self.server.silent and body["think"] is False:
            counts = {"done_reason": "length", "eval_count": body["options"]["num_predict"]}
            return chat_reply("", prompt_eval_count=tokens, **counts)
        return chat_reply(self.content(body), prompt_eval_count=tokens)

    def content(self, body: dict[str, Any]) -> str:
        if body["options"]["num_predict"] == 1:
            return "{"
        target, first, *_ = candidates(body)
        if "format" in body:
            assert first in body["format"]["properties"]["id"]["enum"]
            return json.dumps({"id": first})
        assert f"{target}-ID" in body["messages"][0]["content"]
        return f"{target}-{first}"

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
        """Write no log."""


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
