from collections.abc import Callable
from pathlib import Path

import pytest

from stages.judge.judge import JudgeSettings
from stages.params import load_params

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., JudgeSettings]:
    """make_settings(name, KEY=VALUE of the section openai): what a judge gets of params.yaml."""
    params = load_params(PARAMS)

    def make(name: str, **openai: object) -> JudgeSettings:
        return JudgeSettings(
            name=name,
            language=params.language,
            seed=params.seed,
            pairs=params.pairs,
            ollama=params.ollama,
            openai=params.openai.model_copy(update=openai),
            journals=tmp_path,
        )

    return make
