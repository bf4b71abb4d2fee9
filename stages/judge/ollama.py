"""A local language model as the judge, through Ollama: checked first, answers journalled, each prompt asked once."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import ollama
from httpx_aiohttp import AiohttpTransport
from tqdm import tqdm

from stages.errors import InputError
from stages.judge.dispatch import Host, PromptFault, dispatch
from stages.judge.journal import Answer, Journal
from stages.judge.prompt import Question, Verdict, answer_schema, parse, render

ANSWER_TOKENS = 64  # more than any valid answer has; stops a model that does not stop
TEMPLATE_TOKENS = 64  # what a model's chat template adds to a prompt
CONTEXT_STEP = 1024


@dataclass(frozen=True)
class Server:
    """Where and how to ask."""

    hosts: tuple[str, ...]
    model: str
    concurrency: int  # prompts in flight a host
    timeout: float  # seconds an answer
    num_ctx: int  # tokens at most
    keep_alive: str
    seed: int
    language: str
    answer_format: str  # json or text
    retry_seconds: float = 1.0  # the first rest after a fault

    @property
    def options(self) -> dict[str, Any]:
        """What decides an answer beside model and prompt."""
        return {"temperature": 0, "seed": self.seed, "num_predict": ANSWER_TOKENS}

    def render(self, question: Question, titles: list[str]) -> str:
        return render(question, titles, self.language, self.answer_format)


@dataclass(frozen=True)
class Model:
    """What the server says of itself and of the model."""

    server_version: str
    digest: str
    context: int  # tokens that the model can read


@dataclass(frozen=True)
class Prompt:
    key: str
    text: str
    question: Question  # shortened, where its candidates do not all fit


def ask(
    questions: list[Question], titles: list[str], server: Server, journals: Path, max_invalid: float
) -> tuple[list[Verdict], dict[str, Any]]:
    """Every question's verdict, from the journal where it holds the answer, else from a host; and what it came to.

    journals: folder with one journal a model. Raises InputError when a server or the model is absent, when a fault
    lasts (see dispatch), or when the share of invalid answers exceeds `max_invalid`; the journal keeps every answer.
    """
    return asyncio.run(_ask(questions, titles, server, journals, max_invalid))


async def _ask(
    questions: list[Question], titles: list[str], server: Server, journals: Path, max_invalid: float
) -> tuple[list[Verdict], dict[str, Any]]:
    async with _connected(server) as hosts:
        models = [await check(host, server) for host in hosts]
        if len({model.digest for model in models}) > 1:
            raise InputError(f"llm={server.model} is not the same model on all of ollama.hosts")
        model = models[0]
        limit = min([server.num_ctx, *(model.context for model in models)])
        prompts = [_prompt(question, titles, server, model.digest, limit) for question in questions]
        journal = Journal(journals / f"{model.digest.removeprefix('sha256:')[:16]}.jsonl")
        answers = journal.read()
        wanted = list({prompt.key: prompt for prompt in prompts if prompt.key not in answers}.values())
        num_ctx = min(limit, _context_for(prompts))
        with journal:
            await _ask_all(wanted, hosts, server, num_ctx, journal, answers)
    verdicts = _judge(prompts, answers, server, max_invalid)
    distinct = [answers[key] for key in dict.fromkeys(prompt.key for prompt in prompts)]
    tokens_out, eval_seconds = sum(a.tokens_out for a in distinct), sum(a.eval_seconds for a in distinct)
    return verdicts, {
        "model": server.model,
        "digest": model.digest,
        "server_version": model.server_version,
        "prompts_asked": len(wanted),
        "prompts_reused": len(questions) - len(wanted),
        "shortened": sum(q != p.question for q, p in zip(questions, prompts, strict=True)),
        "num_ctx": num_ctx,
        "tokens_in": sum(a.tokens_in for a in distinct),
        "tokens_out": tokens_out,
        "tokens_out_per_second": tokens_out / eval_seconds if eval_seconds else 0.0,
    }


@asynccontextmanager
async def _connected(server: Server) -> AsyncIterator[list[Host]]:
    timeout = httpx.Timeout(server.timeout, connect=5.0)
    limits = httpx.Limits(max_connections=server.concurrency, max_keepalive_connections=server.concurrency)
    # trust_env: a proxy for the world is none for a server at home. aiohttp: half the time a request of httpx's own
    transports = [AiohttpTransport(limits=limits, trust_env=False) for _ in server.hosts]
    hosts = [
        Host(url, ollama.AsyncClient(url, timeout=timeout, transport=transport, trust_env=False))
        for url, transport in zip(server.hosts, transports, strict=True)
    ]
    try:
        yield hosts
    finally:
        for host in hosts:
            await host.client.close()


async def check(host: Host, server: Server) -> Model:
    """Server and model, before the first prompt; InputError says what to start or to pull."""
    try:
        async with httpx.AsyncClient(timeout=10, trust_env=False) as plain:
            version = (await plain.get(f"{host.url.rstrip('/')}/api/version")).raise_for_status().json()["version"]
        models = (await host.client.list()).models
    except (ConnectionError, httpx.HTTPError, ollama.ResponseError, ValueError, KeyError) as error:
        raise InputError(
            f"no Ollama server at {host.url}: start it with `ollama serve`, or set ollama.hosts"
        ) from error
    tags = {server.model, server.model if ":" in server.model else f"{server.model}:latest"}
    found = next((model for model in models if model.model in tags), None)
    if found is None:
        raise InputError(
            f"the Ollama server at {host.url} has no model {server.model}: run `ollama pull {server.model}`"
        )
    try:
        details = (await host.client.show(server.model)).modelinfo or {}
    except (ConnectionError, httpx.HTTPError, ollama.ResponseError, ValueError) as error:
        raise InputError(f"the Ollama server at {host.url} cannot show {server.model}: {error!r:.200}") from error
    lengths = [value for name, value in details.items() if name.endswith(".context_length")]
    return Model(version, str(found.digest), min(lengths, default=server.num_ctx))


def tokens_at_most(text: str) -> int:
    """No tokenizer at hand makes more tokens than bytes of text outside ASCII, or than two thirds of ASCII's."""
    ascii_count = len(text.encode("ascii", "ignore"))
    return 2 * (len(text) - ascii_count) + (2 * ascii_count + 2) // 3


def shorten(question: Question, titles: list[str], server: Server, limit: int) -> tuple[Question, str]:
    """The question with its latest candidates, as many as fit `limit` tokens, and its prompt: a server cuts unseen."""
    candidates = question.candidates
    while True:
        shorter = Question(question.user, question.target, candidates)
        text = server.render(shorter, titles)
        if tokens_at_most(text) <= limit - ANSWER_TOKENS - TEMPLATE_TOKENS:
            return shorter, text
        if len(candidates) == 1:
            raise InputError(f"a context of {limit} tokens is too small for user {question.user}: raise ollama.num_ctx")
        candidates = candidates[1:]


def _prompt(question: Question, titles: list[str], server: Server, digest: str, limit: int) -> Prompt:
    shorter, text = shorten(question, titles, server, limit)
    what = [digest, server.options, server.num_ctx, server.answer_format, text]
    key = hashlib.sha256(json.dumps(what, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
    return Prompt(key, text, shorter)


def _context_for(prompts: list[Prompt]) -> int:
    """One context size for all, because a server loads the model anew when it changes."""
    longest = max(tokens_at_most(prompt.text) for prompt in prompts) + ANSWER_TOKENS + TEMPLATE_TOKENS
    return -(-longest // CONTEXT_STEP) * CONTEXT_STEP


async def _ask_all(
    wanted: list[Prompt], hosts: list[Host], server: Server, num_ctx: int, journal: Journal, answers: dict[str, Answer]
) -> None:
    """Ask what is wanted, and journal each answer as it arrives."""
    none = invalid = 0
    options = server.options | {"num_ctx": num_ctx}
    with tqdm(total=len(wanted), desc="pairs", unit="prompt") as bar:

        async def ask_one(host: Host, prompt: Prompt) -> None:
            nonlocal none, invalid
            answer = await _answer(host, prompt, server, options)
            journal.append(answer)
            answers[prompt.key] = answer
            verdict = _read(answer, prompt, server)
            none, invalid = none + (verdict.valid and verdict.chosen is None), invalid + (not verdict.valid)
            bar.update()
            bar.set_postfix(none=f"{none / bar.n:.1%}", invalid=f"{invalid / bar.n:.1%}", refresh=False)

        await dispatch(wanted, hosts, ask_one, server.concurrency, server.timeout, server.retry_seconds)


async def _answer(host: Host, prompt: Prompt, server: Server, options: dict[str, Any]) -> Answer:
    begin = time.monotonic()
    response = await host.call(
        host.client.chat(
            server.model,
            [{"role": "user", "content": prompt.text}],
            format=answer_schema(prompt.question) if server.answer_format == "json" else None,
            options=options,
            think=False,  # a model that can think does so unless told not to
            keep_alive=server.keep_alive,
        ),
        server.timeout,
    )
    if not response.done:
        raise PromptFault("the answer is not done")
    return Answer(
        prompt.key,
        response.message.content or "",
        response.prompt_eval_count or 0,
        response.eval_count or 0,
        round(time.monotonic() - begin, 4),
        (response.eval_duration or 0) / 1e9,
    )


def _read(answer: Answer, prompt: Prompt, server: Server) -> Verdict:
    try:
        chosen = parse(answer.text, prompt.question, server.answer_format)
    except ValueError as error:
        return Verdict(None, False, prompt.key, answer.text, answer.seconds, str(error))
    return Verdict(chosen, True, prompt.key, answer.text, answer.seconds)


def _judge(prompts: list[Prompt], answers: dict[str, Answer], server: Server, max_invalid: float) -> list[Verdict]:
    """Read the answers; InputError with an example when too many are invalid."""
    verdicts = [_read(answers[prompt.key], prompt, server) for prompt in prompts]
    invalid = [verdict for verdict in verdicts if not verdict.valid]
    if len(invalid) > max_invalid * len(verdicts):
        raise InputError(
            f"{len(invalid)} of {len(verdicts)} answers of {server.model} are invalid, more than ollama.max_invalid="
            f"{max_invalid}; one was {invalid[0].text!r:.80} ({invalid[0].fault})"
        )
    return verdicts
