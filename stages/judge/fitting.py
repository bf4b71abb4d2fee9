"""Prompts that fit into a model's context: an estimate of tokens, and shorter versions of a question.

The true number of tokens is known only to the server: it refuses a prompt that is too long, or reports after the answer
how many tokens it has read. The estimate is on the low side, so that no prompt is shortened without need.
"""

import hashlib
import json
from dataclasses import dataclass

from stages.errors import InputError
from stages.judge.chat import ChatServer, Model
from stages.judge.prompt import TITLE_LENGTH, Question, render

ANSWER_TOKENS = 64  # more than any valid answer has; stops a model that does not stop
THINKING_TOKENS = 2048  # at most as many more for a model that thinks before it answers
SMALLEST_CONTEXT = 2048
SHORTER = 0.75  # share of the candidates, or of the titles' characters, that is left when a prompt is too long
SHORTEST_TITLE = 8  # characters


@dataclass(frozen=True)
class Prompt:
    """What is asked for one question, whole or shortened."""

    key: str  # hash of all that decides the answer
    text: str
    question: Question  # with the candidates that the prompt shows
    title_length: int  # characters of a title that it shows at most


@dataclass(frozen=True)
class PromptMaker:
    """Makes the prompts of one run."""

    server: ChatServer
    model: Model
    titles: list[str]
    think: bool

    @property
    def num_predict(self) -> int:
        """Tokens that an answer may have."""
        return ANSWER_TOKENS + min(THINKING_TOKENS, self.limit // 2) * self.think

    @property
    def limit(self) -> int:
        """Tokens that prompt and answer may have together."""
        return min(self.server.num_ctx, self.model.context or self.server.num_ctx)

    def first(self, question: Question) -> Prompt:
        """The prompt with as many of the latest candidates as can fit by the estimate."""
        prompt = self._prompt(question, TITLE_LENGTH)
        while (tokens := estimate_tokens(prompt.text)) > self.limit - self.num_predict:
            prompt = self.shorter(prompt, max(self.limit - self.num_predict, 0) / tokens)
        return prompt

    def shorter(self, prompt: Prompt, share: float = SHORTER) -> Prompt:
        """The next shorter prompt: without the oldest candidates, or with one candidate and shorter titles.

        Raises InputError when nothing is left to take away.
        """
        question = prompt.question
        if len(question.candidates) > 1:
            left = max(int(len(question.candidates) * share), 1)
            return self._prompt(
                Question(question.user, question.target, question.candidates[-left:]), prompt.title_length
            )
        shown = max(len(self.titles[item - 1]) for item in (question.target, *question.candidates))
        length = int(min(shown, prompt.title_length) * share)
        if length < SHORTEST_TITLE:
            raise InputError(self._no_room(question.user))
        return self._prompt(question, length)

    def _no_room(self, user: int) -> str:
        if self.limit < self.server.num_ctx:
            return (
                f"llm={self.server.model} reads {self.limit} tokens at most, too few for prompt and answer of user "
                f"{user}: use a model with a longer context"
            )
        return (
            f"{self.limit} tokens are too few for prompt and answer of user {user}: raise {self.server.section}.num_ctx"
        )

    def _prompt(self, question: Question, title_length: int) -> Prompt:
        server = self.server
        text = render(question, self.titles, server.language, server.answer_format, title_length)
        options = {"temperature": 0, "seed": server.seed, "num_predict": self.num_predict}
        decides = [self.model.digest, options, server.num_ctx, server.answer_format, text]
        key = hashlib.sha256(json.dumps(decides, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
        return Prompt(key, text, question, title_length)


def estimate_tokens(text: str) -> int:
    """A low estimate of a text's tokens: four ASCII characters a token, 4.5 bytes of anything else (1.5 CJK ones)."""
    ascii_count = len(text.encode("ascii", "ignore"))
    return round(ascii_count / 4 + (len(text.encode()) - ascii_count) / 4.5)


def context_size(tokens: int, limit: int) -> int:
    """The context to ask for: a power of two, so that different runs ask for the same and a server loads once."""
    size = SMALLEST_CONTEXT
    while size < tokens:
        size *= 2
    return min(size, limit)
