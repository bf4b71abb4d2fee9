"""Pairs of similar items out of users' histories, chosen by a judge (paper section 3.3.1)."""

from pathlib import Path

import polars as pl

from stages.errors import InputError, run_stage
from stages.files import cache_folder, read_parquet, write_json, write_parquet
from stages.judge.lexical import choose_similar
from stages.judge.ollama import Report, Server, ask
from stages.judge.prompt import Question, build_questions
from stages.params import Params, load_params

SPLIT = Path("artifacts/split")


def choose(questions: list[Question], titles: list[str], params: Params) -> Report:
    """Ask the judge that params name."""
    if params.llm == "lexical":
        return Report(choose_similar(questions, titles, params.pairs.threshold), {"invalid": 0})
    o = params.ollama
    server = Server(
        o.hosts, params.llm, o.concurrency, o.timeout, o.num_ctx, o.keep_alive, params.seed, params.language,
        params.pairs.format,
    )  # fmt: skip
    return ask(questions, titles, server, cache_folder("answers") / "journal.jsonl", o.max_invalid)


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

    report = choose(questions, titles, params)
    rows = [(q.user, q.target, a) for q, a in zip(questions, report.answers, strict=True) if a is not None]
    if not rows:
        raise InputError(f"llm={params.llm} found no similar pair: lower pairs.threshold or use another judge")
    schema = dict.fromkeys(("user", "target", "similar"), pl.Int32)
    write_parquet(Path("artifacts/pairs.parquet"), pl.DataFrame(rows, schema=schema, orient="row"))
    write_json(
        Path("metrics/pairs.json"),
        {
            "judge": params.llm,
            "history": params.pairs.history,
            "asked": len(questions),
            "skipped": len(histories) - len(questions),
            "pairs": len(rows),
            "none": len(questions) - len(rows) - report.facts["invalid"],
            **report.facts,
        },
    )


if __name__ == "__main__":
    run_stage(main)
