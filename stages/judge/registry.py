"""The judges by the scheme of `llm`: `lexical`, `openai:NAME`, `ollama:NAME`; any other name is a model of Ollama's."""

from collections.abc import Callable

from stages.judge.judge import Judge, JudgeSettings


def _lexical(settings: JudgeSettings) -> Judge:
    from stages.judge import lexical  # scikit-learn: one second

    return lexical.make_judge(settings)


def _ollama(settings: JudgeSettings) -> Judge:
    from stages.judge import ollama  # ollama and aiohttp: half a second

    return ollama.make_judge(settings)


def _openai(settings: JudgeSettings) -> Judge:
    from stages.judge import openai

    return openai.make_judge(settings)


JUDGES: dict[str, Callable[[JudgeSettings], Judge]] = {"lexical": _lexical, "ollama": _ollama, "openai": _openai}


def find_judge(llm: str) -> tuple[Callable[[JudgeSettings], Judge], str]:
    """The constructor of the judge that `llm` names, and the model's name without the scheme."""
    scheme, _, name = llm.partition(":")
    if scheme in JUDGES and (name or scheme == "lexical"):
        return JUDGES[scheme], name
    return JUDGES["ollama"], llm
