"""A local language model as the judge, through Ollama: several prompts in flight, retries, every answer journalled."""

import asyncio
import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import ollama
from tqdm import tqdm

from stages.errors import InputError
from stages.judge.prompt import Question, answer_schema, parse, render

TRANSIENT = (ConnectionError, httpx.TransportError, json.JSONDecodeError)
TRANSIENT_STATUS = {429, 500, 502, 503, 504, -1}  # -1: an error inside a 200 answer
TRIES = 6


@dataclass(frozen=True)
class Server:
    """Where and how to ask."""

    hosts: tuple[str, ...]
    model: str
    concurrency: int  # prompts in flight a host
    timeout: float  # seconds an answer
    num_ctx: int  # tokens
    keep_alive: str
    seed: int
    language: str
    answer_format: str  # json or text
    retry_seconds: float = 1.0  # the first wait; each further one is twice as long

    @property
    def options(self) -> dict[str, Any]:
        return {"temperature": 0, "seed": self.seed, "num_ctx": self.num_ctx}


@dataclass
class Report:
    """What asking came to."""

    answers: list[int | None] = field(default_factory=list)  # in the questions' order; None = none or invalid
    facts: dict[str, Any] = field(default_factory=dict)


def ask(questions: list[Question], titles: list[str], server: Server, journal: Path, max_invalid: float) -> Report:
    """Every question's answer, from the journal where it holds it, else from the server.

    Raises InputError when a server or the model is absent, when a prompt fails TRIES times, or when the share of
    invalid answers exceeds `max_invalid`; what was answered stays in the journal.
    """
    return asyncio.run(_ask(questions, titles, server, journal, max_invalid))


async def _ask(
    questions: list[Question], titles: list[str], server: Server, journal: Path, max_invalid: float
) -> Report:
    async with _clients(server) as clients:
        versions, digests = zip(*[await _check(client, host, server) for host, client in clients], strict=True)
        if len(set(digests)) > 1:
            raise InputError(f"llm={server.model} is not the same model on all of ollama.hosts: {sorted(set(digests))}")
        shortened = [shorten(question, titles, server) for question in questions]
        prompts = [render(q, titles, server.language, server.answer_format) for q in shortened]
        keys = [_key(digests[0], server, prompt) for prompt in prompts]
        known = dict(_read(journal))
        wanted = {key: (q, p) for key, q, p in zip(keys, shortened, prompts, strict=True) if key not in known}
        await _ask_all(wanted, clients, server, journal, known)
    report = _judge(keys, shortened, known, server, max_invalid)
    report.facts |= {
        "model": server.model,
        "digest": digests[0],
        "server_version": versions[0],
        "shortened": sum(a != b for a, b in zip(questions, shortened, strict=True)),
        "tokens_in": sum(known[key]["tokens_in"] for key in set(keys)),
        "tokens_out": sum(known[key]["tokens_out"] for key in set(keys)),
    }
    return report


@asynccontextmanager
async def _clients(server: Server) -> Iterator[list[tuple[str, ollama.AsyncClient]]]:
    timeout = httpx.Timeout(server.timeout, connect=5.0)
    clients = [(host, ollama.AsyncClient(host, timeout=timeout, trust_env=False)) for host in server.hosts]
    try:
        yield clients
    finally:
        for _, client in clients:
            await client.close()


async def _check(client: ollama.AsyncClient, host: str, server: Server) -> tuple[str, str]:
    """The server's version and the model's digest, before the first prompt."""
    try:
        async with httpx.AsyncClient(timeout=10, trust_env=False) as plain:
            version = (await plain.get(f"{host.rstrip('/')}/api/version")).raise_for_status().json()["version"]
        models = (await client.list()).models
    except (ConnectionError, httpx.HTTPError) as error:
        raise InputError(f"no Ollama server at {host}: start it with `ollama serve`, or set ollama.hosts") from error
    tags = {server.model, server.model if ":" in server.model else f"{server.model}:latest"}
    for model in models:
        if model.model in tags:
            return version, str(model.digest)
    raise InputError(f"the Ollama server at {host} has no model {server.model}: run `ollama pull {server.model}`")


def tokens_at_most(text: str) -> int:
    """No tokenizer at hand makes more tokens than bytes of text outside ASCII, or than two thirds of ASCII's."""
    ascii_count = sum(character < "\x80" for character in text)
    return 2 * (len(text) - ascii_count) + (2 * ascii_count + 2) // 3


def shorten(question: Question, titles: list[str], server: Server) -> Question:
    """The question with its latest candidates only, as many as fit num_ctx: the server would cut it in silence."""
    room = server.num_ctx - 64  # for the answer
    candidates = question.candidates
    while True:
        shorter = Question(question.user, question.target, candidates)
        if tokens_at_most(render(shorter, titles, server.language, server.answer_format)) <= room:
            return shorter
        if len(candidates) == 1:
            raise InputError(f"ollama.num_ctx={server.num_ctx} is too small for the titles of user {question.user}")
        candidates = candidates[1:]


def _key(digest: str, server: Server, prompt: str) -> str:
    content = json.dumps([digest, server.options, server.answer_format, prompt], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _read(journal: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The journal's answers; a last line that a kill cut short is passed over and will be asked again."""
    if not journal.is_file():
        return
    lines = journal.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{journal}: line {number} is damaged: remove the line") from error
        yield entry["key"], entry
    if lines[-1]:
        journal.write_bytes(b"\n".join(lines[:-1]) + b"\n" if len(lines) > 1 else b"")


async def _ask_all(
    wanted: dict[str, tuple[Question, str]],
    clients: list[tuple[str, ollama.AsyncClient]],
    server: Server,
    journal: Path,
    known: dict[str, dict[str, Any]],
) -> None:
    """Ask what is wanted, `concurrency` prompts in flight on each host, and journal each answer as it arrives."""
    waiting = iter(wanted.items())
    with journal.open("a", encoding="utf-8") as file, tqdm(total=len(wanted), desc="pairs", unit="prompt") as bar:

        async def work(client: ollama.AsyncClient) -> None:
            for key, (question, prompt) in waiting:
                entry = {"key": key, **await _ask_one(client, server, question, prompt)}
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
                file.flush()
                known[key] = entry
                bar.update()

        try:
            async with asyncio.TaskGroup() as group:
                for _, client in clients * server.concurrency:
                    group.create_task(work(client))
        except* InputError as errors:
            raise errors.exceptions[0] from None


async def _ask_one(client: ollama.AsyncClient, server: Server, question: Question, prompt: str) -> dict[str, Any]:
    """One answer, asked again after a passing fault, ever later."""
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(server.retry_seconds * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
        try:
            response = await client.chat(
                server.model,
                [{"role": "user", "content": prompt}],
                format=answer_schema(question) if server.answer_format == "json" else None,
                options=server.options,
                think=False,
                keep_alive=server.keep_alive,
            )
        except TRANSIENT as error:
            fault: Exception = error
        except ollama.ResponseError as error:
            if error.status_code not in TRANSIENT_STATUS:
                raise InputError(f"the Ollama server refused a prompt ({error.status_code}): {error.error}") from error
            fault = error
        else:
            return {
                "answer": response.message.content or "",
                "tokens_in": response.prompt_eval_count or 0,
                "tokens_out": response.eval_count or 0,
            }
    raise InputError(f"the Ollama server failed {TRIES} times ({fault!r}): mend it and run the same command again")


def _judge(
    keys: list[str], questions: list[Question], known: dict[str, dict[str, Any]], server: Server, max_invalid: float
) -> Report:
    """Read the answers; InputError with an example when too many are invalid."""
    report, invalid, example = Report(), 0, ""
    for key, question in zip(keys, questions, strict=True):
        text = known[key]["answer"]
        try:
            report.answers.append(parse(text, question, server.answer_format))
        except ValueError as error:
            report.answers.append(None)
            invalid, example = invalid + 1, f"{text!r:.80} ({error})"
    if invalid > max_invalid * len(keys):
        raise InputError(
            f"{invalid} of {len(keys)} answers of {server.model} are invalid, more than ollama.max_invalid="
            f"{max_invalid}; one was {example}"
        )
    report.facts["invalid"] = invalid
    return report
