import hashlib
import json
from dataclasses import replace

import pytest

from stages.errors import InputError
from stages.judge.chat import Model
from stages.judge.fitting import PromptMaker, context_size, estimate_tokens
from stages.judge.ollama import Server
from stages.judge.prompt import Question, render

QUESTION = Question(0, 100, tuple(range(1, 100)))
TITLES = [f"a title of some length, number {item}" for item in range(1, 101)]
MODEL = Model("judge:1b", "a" * 64, 32768, can_think=False, server="Ollama")


def maker(num_ctx: int = 8192, titles=TITLES, think: bool = False, **model) -> PromptMaker:
    server = Server(("host",), "judge:1b", 1, 5.0, num_ctx, "5m", 7, "en", "json")
    return PromptMaker(server, replace(MODEL, **model), titles, think)


def test_a_prompt_that_fits_has_all_candidates_and_the_key_of_earlier_versions():
    prompt = maker().first(QUESTION)
    text = render(QUESTION, TITLES, "en", "json")
    options = {"temperature": 0, "seed": 7, "num_predict": 64}
    key = json.dumps(["a" * 64, options, 8192, "json", text], ensure_ascii=False, sort_keys=True)
    assert (prompt.text, prompt.question) == (text, QUESTION)
    assert prompt.key == hashlib.sha256(key.encode()).hexdigest()


def test_thinking_has_keys_of_its_own_and_more_tokens_for_the_answer():
    assert maker(think=True).first(QUESTION).key != maker().first(QUESTION).key
    assert [maker(think=think).num_predict for think in (False, True)] == [64, 64 + 2048]
    assert maker(num_ctx=1000, think=True).num_predict == 64 + 500


@pytest.mark.parametrize("limit", [{"num_ctx": 800}, {"context": 800}])
def test_a_prompt_beyond_the_limit_keeps_its_latest_candidates(limit):
    prompt = maker(**limit).first(QUESTION)
    kept = prompt.question.candidates
    assert kept == QUESTION.candidates[-len(kept) :]
    assert 20 < len(kept) < 99
    assert estimate_tokens(prompt.text) <= 800 - 64
    assert prompt.text == render(prompt.question, TITLES, "en", "json")


def test_shorter_takes_a_quarter_of_the_candidates_then_of_the_titles_until_nothing_is_left():
    prompts = [maker().first(Question(0, 100, tuple(range(1, 9))))]
    with pytest.raises(InputError, match="raise ollama.num_ctx"):
        while True:
            prompts.append(maker().shorter(prompts[-1]))
    assert [len(prompt.question.candidates) for prompt in prompts[:7]] == [8, 6, 4, 3, 2, 1, 1]
    lengths = [prompt.title_length for prompt in prompts[5:]]
    assert lengths == [500, 25, 18, 13, 9]  # the longer of the two titles has 34 characters
    assert len({prompt.key for prompt in prompts}) == len(prompts)


def test_the_mend_of_a_short_context_depends_on_who_set_it():
    with pytest.raises(InputError, match="llm=judge:1b reads 64 tokens at most, .* user 0: use a model with a longer"):
        maker(context=64).first(QUESTION)
    with pytest.raises(
        InputError, match="^64 tokens are too few for prompt and answer of user 0: raise ollama.num_ctx"
    ):
        maker(num_ctx=64).first(QUESTION)


def test_a_model_of_unknown_context_reads_num_ctx():
    assert maker(num_ctx=5000, context=None).limit == 5000


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("word" * 10, 10), ("麻辣火锅教程" * 3, 12), ("🔥" * 9, 8)])
def test_the_estimate_of_tokens_is_low(text, tokens):
    assert estimate_tokens(text) == tokens


@pytest.mark.parametrize(
    ("tokens", "limit", "size"), [(1, 8192, 2048), (2048, 8192, 2048), (2049, 8192, 4096), (9000, 5000, 5000)]
)
def test_contexts_are_powers_of_two_up_to_the_limit(tokens, limit, size):
    assert context_size(tokens, limit) == size
