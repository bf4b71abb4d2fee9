"""Ask a language model all questions: each different prompt once, every answer journalled.

The longest prompt goes first. Its answer shows whether the context suffices and whether the model answers without
thinking. A prompt that turns out too long is asked again in a larger context, or, at `num_ctx`, shortened.
"""

import asyncio
import hashlib
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from stages.errors import InputError
from stages.judge.chat import ChatServer, Model, Reply, Request
from stages.judge.dispatch import dispatch
from stages.judge.fitting import Prompt, PromptMaker, context_size, estimate_tokens
from stages.judge.hosts import Host, PromptTooLong
from stages.judge.journal import Answer, Journal
from stages.judge.judge import Statistics
from stages.judge.prompt import Question, Verdict, answer_schema
from stages.judge.reading import check_invalid, read, statistics

EARLY_ANSWERS = 40  # after so many, the run stops if more than the share below is invalid
EARLY_INVALID = 0.9
CUT_TOLERANCE = 8  # tokens around half of the context, to which Ollama cuts a prompt


def ask(
    questions: list[Question], titles: list[str], server: ChatServer, journals: Path, max_invalid: float
) -> tuple[list[Verdict], Statistics]:
    """Every question's verdict, from the journal where it has the answer, and statistics of the answers.

    journals: folder with one journal a model. Raises InputError when a server or the model is absent, when a fault
    lasts (see dispatch.py), when the first answers are nearly all invalid, or when more than the share `max_invalid`
    is; the journal keeps every answer.
    """
    return asyncio.run(_ask(questions, titles, server, journals, max_invalid))


async def _ask(
    questions: list[Question], titles: list[str], server: ChatServer, journals: Path, max_invalid: float
) -> tuple[list[Verdict], Statistics]:
    async with server.connect() as hosts:
        model = await server.inspect(hosts)
        journal = Journal(journals / f"{_journal_name(model.digest)}.jsonl")
        with journal:
            maker = PromptMaker(server, model, titles, think=False)
            run = Run(server, model, hosts, journal, journal.read(), maker, max(max_invalid, EARLY_INVALID))
            prompts = await run.answer_all(questions)
    different = {prompt.key: run.answers[prompt.key] for prompt in prompts}
    print(
        f"{model.name} on {model.server}: {len(run.asked)} prompts asked, "
        f"{len(different.keys() - run.asked)} answers reused" + (", with thinking" if run.maker.think else "")
    )
    verdicts = [read(run.answers[prompt.key], prompt, server) for prompt in prompts]
    check_invalid(verdicts, server, max_invalid)
    return verdicts, statistics(questions, prompts, list(different.values()), model)


def _journal_name(digest: str) -> str:
    """The first digits of Ollama's digest, or of the hash of what another protocol has for it."""
    hexadecimal = digest.removeprefix("sha256:")
    if len(hexadecimal) != 64:
        hexadecimal = hashlib.sha256(digest.encode()).hexdigest()
    return hexadecimal[:16]


@dataclass
class Run:
    """One run over all questions: the answers it has, the context it asks for, what it counted."""

    server: ChatServer
    model: Model
    hosts: list[Host]
    journal: Journal
    answers: dict[str, Answer]  # by prompt key
    maker: PromptMaker
    early_invalid: float  # share of invalid answers above which the run stops early
    num_ctx: int = 0  # tokens of context that prompts are sent with
    loaded: dict[str, int] = field(default_factory=dict)  # tokens of context in which a host holds the model, by URL
    tokens_per_estimate: float = 1.0  # measured on the longest prompt
    asked: set[str] = field(default_factory=set)  # keys of the prompts that this run asked
    valid: int = 0
    invalid: int = 0

    async def answer_all(self, questions: list[Question]) -> list[Prompt]:
        """Put an answer to each question into `answers`; return the prompt of each."""
        prompts = [self.maker.first(question) for question in questions]
        longest = max(prompts, key=lambda prompt: estimate_tokens(prompt.text))
        if await self._has_to_think(longest):
            self.maker = replace(self.maker, think=True)
            prompts = [self.maker.first(question) for question in questions]
            longest = max(prompts, key=lambda prompt: estimate_tokens(prompt.text))
        [longest] = await self._answer([longest])
        self.tokens_per_estimate = max(
            self.answers[longest.key].tokens_in / estimate_tokens(longest.text), self.tokens_per_estimate
        )
        prompts = [self._not_too_long(prompt) for prompt in prompts]
        self.valid = self.invalid = 0
        self._count({prompt.key: prompt for prompt in prompts if prompt.key in self.answers}.values())
        return await self._answer(prompts)

    async def _has_to_think(self, prompt: Prompt) -> bool:
        """Whether the model is to think before it answers: with `auto`, only if it gives no answer without."""
        if self.server.think != "auto" or not self.model.can_think:
            return self.server.think == "always"
        [prompt] = await self._answer([prompt])
        silent = not self.answers[prompt.key].text.strip()
        if silent:
            print(
                f"{self.model.name} gives no answer without thinking: it thinks first, which takes longer "
                f"({self.server.section}.think=never prevents it)"
            )
        return silent

    async def _answer(self, prompts: list[Prompt]) -> list[Prompt]:
        """Ask until each prompt, or a shorter version of it, has its answer; return the versions that have."""
        prompts = [self._not_too_long(prompt) for prompt in prompts]
        while wanted := {prompt.key: prompt for prompt in prompts if prompt.key not in self.answers}:
            await self._size_context(wanted.values())
            too_long = await self._ask_once(list(wanted.values()))
            if too_long and self.num_ctx < self.maker.limit:
                self.num_ctx = min(2 * self.num_ctx, self.maker.limit)
                continue
            for prompt in too_long:
                self._keep(Answer(prompt.key, "", 0, 0, 0.0, 0.0, too_long=True))
            prompts = [self._not_too_long(prompt) for prompt in prompts]
        return prompts

    def _not_too_long(self, prompt: Prompt) -> Prompt:
        """The longest version of a prompt that is not known to be too long."""
        while (answer := self.answers.get(prompt.key)) and answer.too_long:
            prompt = self.maker.shorter(prompt)
        return prompt

    async def _size_context(self, prompts: Iterable[Prompt]) -> None:
        """Choose one context for all prompts: loading the model anew for another size takes long."""
        if not self.server.sizes_context:
            self.num_ctx = self.maker.limit
            return
        tokens = max(estimate_tokens(prompt.text) for prompt in prompts) * self.tokens_per_estimate
        needed = context_size(math.ceil(tokens) + self.maker.num_predict, self.maker.limit)
        if self.num_ctx == 0:
            for host in self.hosts:
                self.loaded[host.url] = await self.server.loaded_context(host, self.model) or 0
                if 0 < self.loaded[host.url] < needed:
                    print(
                        f"{host.url} holds {self.model.name} with a context of {self.loaded[host.url]} tokens and this "
                        f"run needs {needed}: if another run uses it, this one waits until that has ended"
                    )
        self.num_ctx = max(self.num_ctx, needed)

    async def _ask_once(self, wanted: list[Prompt]) -> list[Prompt]:
        """Ask each prompt and journal its answer as it arrives; return the prompts that are too long."""
        too_long: list[Prompt] = []
        with tqdm(total=len(wanted), desc="pairs", unit="prompt", leave=len(wanted) > 1) as bar:

            async def ask_one(host: Host, prompt: Prompt) -> None:
                try:
                    answer = await self._send(host, prompt)
                except PromptTooLong:
                    too_long.append(prompt)
                    return
                self._keep(answer)
                self.asked.add(prompt.key)
                self._count([prompt])
                bar.update()
                bar.set_postfix(invalid=f"{self.invalid / (self.valid + self.invalid):.1%}", refresh=False)

            server = self.server
            await dispatch(
                wanted, self.hosts, ask_one,
                concurrency=server.concurrency, patience=server.timeout, first_rest=server.retry_seconds,
            )  # fmt: skip
        return too_long

    def _keep(self, answer: Answer) -> None:
        self.journal.append(answer)
        self.answers[answer.key] = answer

    async def _send(self, host: Host, prompt: Prompt) -> Answer:
        """One prompt's answer. Raises what `send` raises, and PromptTooLong if the server has cut the prompt."""
        begin = time.monotonic()
        schema = answer_schema(prompt.question) if self.server.answer_format == "json" else None
        num_ctx = max(self.num_ctx, self.loaded.get(host.url, 0))
        request = Request(self.model.name, prompt.text, schema, num_ctx, self.maker.num_predict, self.maker.think)
        reply = await self.server.send(host, request)
        seconds = round(time.monotonic() - begin, 4)
        if self.server.sizes_context and await self._was_cut(host, request, reply):
            raise PromptTooLong
        return Answer(
            prompt.key, reply.text, reply.tokens_in, reply.tokens_out, seconds, reply.eval_seconds, reply.done
        )

    async def _was_cut(self, host: Host, request: Request, reply: Reply) -> bool:
        """Whether the server dropped a part of the prompt, which one that does not know `truncate` does silently.

        Two signs: prompt and answer fill the context; or the prompt's tokens are about half of the context, to which
        Ollama cuts. As a whole prompt may have so many too, its first half is then sent: a whole one has fewer tokens.
        """
        if reply.tokens_in + reply.tokens_out > min(request.num_ctx, self.maker.limit):
            return True
        if abs(reply.tokens_in - request.num_ctx // 2) > CUT_TOLERANCE:
            return False
        half = replace(request, text=request.text[: len(request.text) // 2], schema=None, num_predict=1, think=False)
        return (await self.server.send(host, half)).tokens_in >= reply.tokens_in - CUT_TOLERANCE

    def _count(self, prompts: Iterable[Prompt]) -> None:
        """Count valid and invalid answers. Raises InputError, which quotes one, when nearly all are invalid."""
        for prompt in prompts:
            verdict = read(self.answers[prompt.key], prompt, self.server)
            self.valid, self.invalid = self.valid + verdict.valid, self.invalid + (not verdict.valid)
            answers = self.valid + self.invalid
            if not verdict.valid and answers >= EARLY_ANSWERS and self.invalid > self.early_invalid * answers:
                other = "text" if self.server.answer_format == "json" else "json"
                think = f", {self.server.section}.think=always" if self.model.can_think and not self.maker.think else ""
                raise InputError(
                    f"{self.invalid} of the first {answers} answers of {self.model.name} are invalid; one was "
                    f"{verdict.text!r} ({verdict.fault}): try pairs.format={other}{think} or another llm"
                )
