"""Pairs of similar items out of users' histories, chosen by a judge (paper section 3.3.1)."""

from pathlib import Path
from typing import Any

import polars as pl

from stages.errors import InputError, run_stage
from stages.files import cache_folder, read_parquet, write_json, write_parquet
from stages.judge.lexical import choose_similar
from stages.judge.ollama import Server, ask
from stages.judge.prompt import Question, Verdict, build_questions
from stages.params import Params, load_params

SPLIT = Path("artifacts/split")
ANSWERS = {
    "user": pl.Int32,
    "target": pl.Int32,
    "chosen": pl.Int32,  # null = none, or invalid
    "valid": pl.Boolean,
    "prompt": pl.String,  # hash of model, options and prompt
    "text": pl.String,
    "seconds": pl.Float64,
}


def choose(questions: list[Question], titles: list[str], params: Params) -> tuple[list[Verdict], dict[str, Any]]:
    """The verdicts of the judge that params name, and what is to be said of it."""
    if params.llm == "lexical":
        return choose_similar(questions, titles, params.pairs.threshold), {}
    o = params.ollama
    server = Server(
        o.hosts, params.llm, o.concurrency, o.timeout, o.num_ctx, o.keep_alive, params.seed, params.language,
        params.pairs.format,
    )  # fmt: skip
    return ask(questions, titles, server, cache_folder("answers"), o.max_invalid)


def answers_table(questions: list[Question], verdicts: list[Verdict]) -> pl.DataFrame:
    """Every question with what was answered, by user."""
    rows = [
        (q.user, q.target, v.chosen, v.valid, v.prompt, v.text, v.seconds)
        for q, v in zip(questions, verdicts, strict=True)
    ]
    return pl.DataFrame(rows, schema=ANSWERS, orient="row").sort("user")


def main() -> None:
    params = load_params()
    histories = read_parquet(SPLIT / f"{params.pairs.history}.parquet")
    items = read_parquet(SPLIT / "items.parquet")
    titles = items[f"title_{params.language}"].to_list()
    if "" in titles:
        nameless = items["raw_id"][titles.index("")]
        print(f"items without a title_{params.language}: {titles.count('')}, the first is {nameless}")
    if params.pairs.history == "full":
        print("pairs.history=full: fine-tuning sees validation and test items; do not report these metrics as honest")
    questions = build_questions(histories)
    if not questions:
        raise InputError(f"{SPLIT}/{params.pairs.history}.parquet has no history of two items to ask about")

    verdicts, facts = choose(questions, titles, params)
    answers = answers_table(questions, verdicts)
    pairs = answers.filter(pl.col("chosen").is_not_null()).select("user", "target", similar="chosen")
    if pairs.is_empty():
        raise InputError(f"llm={params.llm} found no similar pair: lower pairs.threshold or use another judge")
    write_parquet(Path("artifacts/answers.parquet"), answers)
    write_parquet(Path("artifacts/pairs.parquet"), pairs)
    invalid = answers.height - answers["valid"].sum()
    write_json(
        Path("metrics/pairs.json"),
        {
            "judge": params.llm,
            "history": params.pairs.history,
            "histories": len(histories),
            "skipped": len(histories) - len(questions),
            "pairs": pairs.height,
            "none": answers.height - pairs.height - invalid,
            "invalid": invalid,
            **facts,
        },
    )


if __name__ == "__main__":
    run_stage(main)
