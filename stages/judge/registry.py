"""The judges by the scheme of `llm`: `lexical`, `openai:NAME`, `ollama:NAME`; any other name is a model of Ollama's."""

from collections.abc import Callable

from stages.judge import lexical, ollama, openai
from stages.judge.judge import Judge, JudgeSettings

JUDGES: dict[str, Callable[[JudgeSettings], Judge]] = {
    "lexical": lexical.make_judge,
    "ollama": ollama.make_judge,
    "openai": openai.make_judge,
}


def find_judge(llm: str) -> tuple[Callable[[JudgeSettings], Judge], str]:
    """The constructor of the judge that `llm` names, and the model's name without the scheme."""
    scheme, _, name = llm.partition(":")
    if scheme in JUDGES and (name or scheme == "lexical"):
        return JUDGES[scheme], name
    return JUDGES["ollama"], llm
