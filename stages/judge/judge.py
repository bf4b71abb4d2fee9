"""What the pairs stage needs of a judge, and what a judge may know of the params."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stages.judge.prompt import Question, Verdict
from stages.params import OllamaParams, OpenAIParams, PairsParams

Statistics = dict[str, str | int | float]


class Judge(Protocol):
    """Chooses the similar item of each history."""

    def choose(self, questions: list[Question], titles: list[str]) -> tuple[list[Verdict], Statistics]:
        """One verdict a question, in order, and statistics for metrics/pairs.json. titles: item i's is `titles[i - 1]`.

        The statistics depend on the answers alone: what varies between runs with the same answers goes to the log.
        """
        ...


@dataclass(frozen=True)
class JudgeSettings:
    """The params that judges read."""

    name: str  # `llm` without its scheme
    language: str
    seed: int
    pairs: PairsParams
    ollama: OllamaParams
    openai: OpenAIParams
    journals: Path  # folder of answers that outlives a run
