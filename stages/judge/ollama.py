"""A model of one or several Ollama servers as the judge."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import httpx
import ollama
from pydantic import BaseModel

from stages.errors import InputError
from stages.judge.asking import ask
from stages.judge.chat import Model, Reply, Request
from stages.judge.hosts import Host, connect
from stages.judge.judge import JudgeSettings, Statistics
from stages.judge.ollama_names import base_url, full_name
from stages.judge.prompt import Question, Verdict

FACTS_SECONDS = 10  # to wait for facts about a server and its models
FAULTS = (ollama.ResponseError, ConnectionError, httpx.HTTPError, ValueError)  # of a request that only asks for facts


class Version(BaseModel):
    version: str


@dataclass(frozen=True)
class Server:
    """Where and how to ask. Implements chat.ChatServer."""

    section: ClassVar[str] = "ollama"
    sizes_context: ClassVar[bool] = True

    hosts: tuple[str, ...]
    model: str
    concurrency: int  # prompts in flight on each host
    timeout: float  # seconds for one answer
    num_ctx: int  # tokens of prompt and answer at most
    keep_alive: str  # how long the server keeps the model in memory
    seed: int
    language: str
    answer_format: str  # json or text
    retry_seconds: float = 1.0  # the first rest after a fault
    think: str = "auto"  # auto, never, always

    def connect(self) -> AbstractAsyncContextManager[list[Host]]:
        """A client for each server, closed after the block."""
        urls = tuple(dict.fromkeys(base_url(host) for host in self.hosts))
        return connect(urls, concurrency=self.concurrency, timeout=self.timeout, headers={}, environment_proxy=False)

    async def inspect(self, hosts: list[Host]) -> Model:
        """Check servers and model. Raises InputError that says what to start, to pull or to set."""
        models = [await self._inspect(host) for host in hosts]
        if len({model.digest for model in models}) > 1:
            raise InputError(f"llm={self.model} is not the same model on all of ollama.hosts: pull it anew on each")
        return models[0]

    async def _inspect(self, host: Host) -> Model:
        try:
            version = (await host.get("/api/version", Version)).version
            async with self._client(host) as client:
                installed = (await client.list()).models
        except httpx.HTTPStatusError as error:
            raise InputError(
                f"the server at {host.url} answers {error.response.status_code}, not as Ollama does: start Ollama "
                "there, or set ollama.hosts"
            ) from error
        except FAULTS as error:
            raise InputError(
                f"no Ollama server at {host.url}: start it with `ollama serve`, or set ollama.hosts"
            ) from error
        found = next((each for each in installed if full_name(each.model or "") == full_name(self.model)), None)
        if found is None or found.model is None:
            raise InputError(
                f"the Ollama server at {host.url} has no model {self.model}: run `ollama pull {self.model}`"
            )
        try:
            async with self._client(host) as client:
                shown = await client.show(found.model)
        except FAULTS as error:
            raise InputError(f"the Ollama server at {host.url} cannot show {self.model}: {error!r:.200}") from error
        facts = (shown.modelinfo or {}).items()
        context = min((value for name, value in facts if name.endswith(".context_length")), default=None)
        can_think = "thinking" in (shown.capabilities or [])
        # a server without digests: its models' answers are told apart by name
        return Model(found.model, found.digest or found.model, context, can_think, f"Ollama {version}")

    def _client(self, host: Host) -> ollama.AsyncClient:
        return ollama.AsyncClient(host.url, timeout=FACTS_SECONDS, trust_env=False)

    async def loaded_context(self, host: Host, model: Model) -> int | None:
        """Tokens of context in which the host holds the model in memory; None if it does not or cannot say."""
        try:
            async with self._client(host) as client:
                loaded = (await client.ps()).models
        except FAULTS:
            return None
        return next((each.context_length for each in loaded if each.digest == model.digest), None)

    async def send(self, host: Host, request: Request) -> Reply:
        """Ask one prompt. Raises what Host.post raises.

        A plain request: the client's own `chat` has no `truncate`.
        """
        body = {
            "model": request.model,
            "messages": [{"role": "user", "content": request.text}],
            "options": {
                "temperature": 0, "seed": self.seed, "num_predict": request.num_predict, "num_ctx": request.num_ctx
            },
            "think": request.think,  # a model that can think does so unless told not to
            "truncate": False,  # refuse a prompt that is too long; Ollama before 0.12.5 cuts it all the same
            "keep_alive": self.keep_alive,
            "stream": False,
        }  # fmt: skip
        if request.schema:
            body["format"] = request.schema
        reply = await host.post("/api/chat", body, self.timeout, ollama.ChatResponse)
        return Reply(
            text=reply.message.content or "",
            tokens_in=reply.prompt_eval_count or 0,  # an answer that the server gave up on has no counts
            tokens_out=reply.eval_count or 0,
            eval_seconds=(reply.eval_duration or 0) / 1e9,
            done=bool(reply.done),
        )


@dataclass(frozen=True)
class OllamaJudge:
    """An Ollama model. Implements judge.Judge."""

    server: Server
    journals: Path
    max_invalid: float

    def choose(self, questions: list[Question], titles: list[str]) -> tuple[list[Verdict], Statistics]:
        """See judge.Judge."""
        return ask(questions, titles, self.server, self.journals, self.max_invalid)


def make_judge(settings: JudgeSettings) -> OllamaJudge:
    """The judge with these settings, for the registry."""
    section = settings.ollama
    server = Server(
        hosts=section.hosts, model=settings.name, concurrency=section.concurrency, timeout=section.timeout,
        num_ctx=section.num_ctx, keep_alive=section.keep_alive, seed=settings.seed, language=settings.language,
        answer_format=settings.pairs.format, think=section.think,
    )  # fmt: skip
    return OllamaJudge(server, settings.journals, section.max_invalid)
