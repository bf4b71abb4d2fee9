import pytest

from stages.judge.lexical import LexicalJudge
from stages.judge.ollama import OllamaJudge
from stages.judge.openai import OpenAIJudge
from stages.judge.registry import JUDGES, find_judge


@pytest.mark.parametrize(
    ("llm", "scheme", "name"),
    [
        ("lexical", "lexical", ""),
        ("glm4:9b-chat-fp16", "ollama", "glm4:9b-chat-fp16"),
        ("deepseek-v3", "ollama", "deepseek-v3"),
        ("hf.co/unsloth/Hunyuan-GGUF:Q4_K_M", "ollama", "hf.co/unsloth/Hunyuan-GGUF:Q4_K_M"),
        ("ollama:openai:latest", "ollama", "openai:latest"),
        ("ollama", "ollama", "ollama"),
        ("openai:org/model:v1", "openai", "org/model:v1"),
    ],
)
def test_llm_names_a_judge_and_its_model(llm, scheme, name):
    assert find_judge(llm) == (JUDGES[scheme], name)


@pytest.mark.parametrize(
    ("scheme", "kind"), [("lexical", LexicalJudge), ("ollama", OllamaJudge), ("openai", OpenAIJudge)]
)
def test_every_judge_is_made_of_the_settings(scheme, kind, make_settings):
    assert isinstance(JUDGES[scheme](make_settings("name")), kind)
