"""A model behind the chat completions of the OpenAI protocol as the judge: `llm=openai:NAME`.

vLLM, llama-server, LM Studio, Ollama, OpenAI and others speak it. The key, if the server wants one, is OPENAI_API_KEY.
"""

import os
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import httpx
from pydantic import BaseModel, Field

from stages.errors import InputError
from stages.judge.asking import ask
from stages.judge.chat import Model, Reply, Request
from stages.judge.hosts import Host, connect
from stages.judge.judge import JudgeSettings, Statistics
from stages.judge.prompt import Question, Verdict

OPENAI = "https://api.openai.com/v1"


class Listed(BaseModel):
    id: str


class Models(BaseModel):
    data: list[Listed]


class Message(BaseModel):
    content: str | None = None


class Choice(BaseModel):
    message: Message


class Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Completion(BaseModel):
    """Reply of /chat/completions."""

    choices: list[Choice] = Field(min_length=1)
    usage: Usage | None = None  # not every server counts


@dataclass(frozen=True)
class Server:
    """Where and how to ask. Implements chat.ChatServer."""

    section: ClassVar[str] = "openai"
    sizes_context: ClassVar[bool] = False

    base_url: str  # up to and with /v1
    model: str
    concurrency: int  # prompts in flight
    timeout: float  # seconds for one answer
    num_ctx: int  # tokens of prompt and answer at most
    seed: int
    language: str
    answer_format: str  # json or text
    retry_seconds: float = 1.0  # the first rest after a fault
    think: str = "never"  # the protocol has no switch for it

    def connect(self) -> AbstractAsyncContextManager[list[Host]]:
        """A client for each server, closed after the block. Raises InputError for an odd key or address."""
        key = os.environ.get("OPENAI_API_KEY", "").strip()  # read from a file it ends with a line break
        if not (key.isascii() and key.isprintable()):
            raise InputError("the environment's OPENAI_API_KEY has characters that no key has: copy it anew")
        try:
            httpx.URL(self.base_url)
        except httpx.InvalidURL as error:
            raise InputError(
                f"openai.base_url={self.base_url} is no address ({error}): write it as http://HOST:PORT/v1"
            ) from error
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return connect(
            (self.base_url.rstrip("/"),),
            concurrency=self.concurrency, timeout=self.timeout, headers=headers, environment_proxy=True,
        )  # fmt: skip

    async def inspect(self, hosts: list[Host]) -> Model:
        """Check server, key and model. Raises InputError that says what to set."""
        [host] = hosts
        try:
            names = [listed.id for listed in (await host.get("/models", Models)).data]
        except httpx.HTTPStatusError as error:
            if error.response.status_code in (401, 403):
                raise InputError(f"{host.url} refuses the key: set the environment's OPENAI_API_KEY") from error
            names = []  # not every server lists its models
        except (httpx.HTTPError, ValueError) as error:
            raise InputError(
                f"no server with the OpenAI protocol at {host.url}: set openai.base_url or OPENAI_BASE_URL, for "
                "example http://127.0.0.1:8000/v1"
            ) from error
        if names and self.model not in names:
            raise InputError(f"{host.url} has no model {self.model}, but {', '.join(names):.200}: set llm=openai:NAME")
        return Model(self.model, f"openai {host.url} {self.model}", None, False, host.url)

    async def loaded_context(self, host: Host, model: Model) -> int | None:
        """None: the protocol does not tell."""
        return None

    async def send(self, host: Host, request: Request) -> Reply:
        """Ask one prompt. Raises what Host.post raises."""
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [{"role": "user", "content": request.text}],
            "temperature": 0,
            "seed": self.seed,
            "max_tokens": request.num_predict,
        }
        if request.schema:
            schema = request.schema | {"additionalProperties": False}  # `strict` demands it
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema, "strict": True},
            }
        reply = await host.post("/chat/completions", body, self.timeout, Completion)
        usage = reply.usage or Usage()
        return Reply(reply.choices[0].message.content or "", usage.prompt_tokens, usage.completion_tokens, 0.0, True)


@dataclass(frozen=True)
class OpenAIJudge:
    """A model behind OpenAI's protocol. Implements judge.Judge."""

    server: Server
    journals: Path
    max_invalid: float

    def choose(self, questions: list[Question], titles: list[str]) -> tuple[list[Verdict], Statistics]:
        """See judge.Judge."""
        return ask(questions, titles, self.server, self.journals, self.max_invalid)


def make_judge(settings: JudgeSettings) -> OpenAIJudge:
    """The judge with these settings, for the registry."""
    section = settings.openai
    server = Server(
        base_url=section.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI, model=settings.name,
        concurrency=section.concurrency, timeout=section.timeout, num_ctx=section.num_ctx, seed=settings.seed,
        language=settings.language, answer_format=settings.pairs.format,
    )  # fmt: skip
    return OpenAIJudge(server, settings.journals, section.max_invalid)
