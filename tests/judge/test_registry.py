import pytest

from stages.judge import lexical, ollama, openai
from stages.judge.registry import JUDGES, find_judge


@pytest.mark.parametrize(
    ("llm", "judge", "name"),
    [
        ("lexical", lexical, ""),
        ("glm4:9b-chat-fp16", ollama, "glm4:9b-chat-fp16"),
        ("deepseek-v3", ollama, "deepseek-v3"),
        ("hf.co/unsloth/Hunyuan-GGUF:Q4_K_M", ollama, "hf.co/unsloth/Hunyuan-GGUF:Q4_K_M"),
        ("ollama:openai:latest", ollama, "openai:latest"),
        ("ollama", ollama, "ollama"),
        ("openai:org/model:v1", openai, "org/model:v1"),
    ],
)
def test_llm_names_a_judge_and_its_model(llm, judge, name):
    assert find_judge(llm) == (judge.make_judge, name)


@pytest.mark.parametrize("scheme", JUDGES)
def test_every_judge_is_made_of_the_settings(scheme, make_settings):
    judge = JUDGES[scheme](make_settings("name"))
    assert callable(judge.choose)
