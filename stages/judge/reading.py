"""What a language model's answers come to: verdicts, the check for invalid ones, statistics."""

from stages.errors import InputError
from stages.judge.chat import ChatServer, Model
from stages.judge.fitting import Prompt
from stages.judge.journal import Answer
from stages.judge.judge import Statistics
from stages.judge.prompt import TITLE_LENGTH, Question, Verdict, parse


def read(answer: Answer, prompt: Prompt, server: ChatServer) -> Verdict:
    """The verdict that an answer holds; an answer that cannot be read is an invalid one."""
    try:
        if not answer.done:
            raise ValueError("the server gave up on it, as when a model repeats a token")
        chosen = parse(answer.text, prompt.question, server.answer_format)
    except (ValueError, RecursionError) as error:  # JSON of a thousand open brackets, when a model repeats one
        return Verdict(None, False, prompt.key, answer.text, answer.seconds, str(error))
    return Verdict(chosen, True, prompt.key, answer.text, answer.seconds)


def check_invalid(verdicts: list[Verdict], server: ChatServer, max_invalid: float) -> None:
    """Raises InputError with an example when too many answers are invalid."""
    invalid = [verdict for verdict in verdicts if not verdict.valid]
    if len(invalid) > max_invalid * len(verdicts):
        raise InputError(
            f"{len(invalid)} of {len(verdicts)} answers of {server.model} are invalid, more than "
            f"{server.section}.max_invalid={max_invalid}; one was {invalid[0].text!r:.80} ({invalid[0].fault}): "
            "try another llm or pairs.format, or raise max_invalid"
        )


def statistics(questions: list[Question], prompts: list[Prompt], answers: list[Answer], model: Model) -> Statistics:
    """Facts for metrics/pairs.json. prompts: each question's; answers: of the different prompts."""
    tokens_out, eval_seconds = sum(a.tokens_out for a in answers), sum(a.eval_seconds for a in answers)
    shortened = [q != p.question or p.title_length < TITLE_LENGTH for q, p in zip(questions, prompts, strict=True)]
    return {
        "model": model.name,
        "digest": model.digest,
        "shortened": sum(shortened),
        "tokens_in": sum(a.tokens_in for a in answers),
        "tokens_out": tokens_out,
        "tokens_out_per_second": tokens_out / eval_seconds if eval_seconds else 0.0,
    }
