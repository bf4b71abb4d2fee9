"""A stand-in for a server with the OpenAI protocol on the loopback, which checks what it is sent."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.judge.ollama_server import candidates

MODEL = "org/judge-7b"


class OpenAIServer(ThreadingHTTPServer):
    """Answers each question with its first candidate.

    key: what clients have to send; context: tokens that it reads, four characters each; lists_models: whether it has
    /models; status: of every completion; counts: whether it tells the tokens of a completion.
    """

    daemon_threads = True

    def __init__(
        self,
        key: str | None = None,
        context: int = 100_000,
        lists_models: bool = True,
        status: int = 200,
        counts: bool = True,
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.key, self.context, self.lists_models, self.status = key, context, lists_models, status
        self.counts = counts
        self.requests: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: OpenAIServer

    def do_GET(self) -> None:
        if not self.authorized():
            return None
        if self.path == "/v1/models" and self.server.lists_models:
            return self.reply(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        return self.fail(404, "Not Found")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.authorized():
            return None
        if self.path != "/v1/chat/completions" or body["model"] != MODEL:
            return self.fail(404, f"The model `{body['model']}` does not exist.")
        self.server.requests.append(body)
        if self.server.status != 200:
            return self.fail(self.server.status, "You exceeded your current quota")
        tokens = len(body["messages"][0]["content"]) // 4
        if tokens > self.server.context:
            return self.fail(400, f"This model's maximum context length is {self.server.context} tokens.")
        target, first, *_ = candidates(body)
        message = {"role": "assistant", "content": f"{target}-{first}"}
        if "response_format" in body:
            schema = body["response_format"]["json_schema"]
            assert schema["strict"]
            assert schema["schema"]["additionalProperties"] is False
            assert first in schema["schema"]["properties"]["id"]["enum"]
            message["content"] = json.dumps({"id": first})
        usage = {"prompt_tokens": tokens, "completion_tokens": 5, "total_tokens": tokens + 5}
        usage = usage if self.server.counts else None
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return self.reply(200, {"object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage})

    def authorized(self) -> bool:
        if self.server.key in (None, (self.headers["Authorization"] or "").removeprefix("Bearer ")):
            return True
        self.fail(401, "Incorrect API key provided")
        return False

    def fail(self, status: int, message: str) -> None:
        self.reply(status, {"error": {"message": message, "type": "invalid_request_error"}})

    def reply(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Write no log."""


@contextmanager
def openai_server(**options: Any) -> Iterator[OpenAIServer]:
    """A running server, gone after the block."""
    server = OpenAIServer(**options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
