"""Choose each user's pair of similar items by a judge (paper section 3.3.1)."""

from pathlib import Path

import polars as pl

from stages.errors import InputError, run_stage
from stages.files import cache_folder, read_parquet, write_json, write_parquet
from stages.judge.judge import JudgeSettings
from stages.judge.prompt import Question, Verdict, build_questions
from stages.judge.registry import find_judge
from stages.params import load_params
from stages.provenance import check_inputs

SPLIT = Path("artifacts/split")
ANSWERS = {
    "user": pl.Int32,
    "target": pl.Int32,
    "chosen": pl.Int32,  # null = no candidate is similar, or the answer is invalid
    "valid": pl.Boolean,
    "prompt": pl.String,  # hash of model, options and prompt
    "text": pl.String,
    "seconds": pl.Float64,
}


def read_titles(items: pl.DataFrame, language: str) -> list[str]:
    """The items' titles, all empty if no item has one in any language; says how many are empty.

    Raises InputError when titles are in another language only.
    """
    titles = items[f"title_{language}"].to_list()
    if any(titles):
        if "" in titles:
            untitled = items["raw_id"][titles.index("")]
            print(f"items without a title_{language}: {titles.count('')}, the first is {untitled}")
        return titles
    other = "en" if language == "zh" else "zh"
    if (items[f"title_{other}"] != "").any():
        raise InputError(f"{SPLIT}/items.parquet: no item has a title_{language}: set language={other}")
    print("no item has a title: there is nothing to compare, and no pairs")
    return titles


def answers_table(questions: list[Question], verdicts: list[Verdict]) -> pl.DataFrame:
    """Every question with its answer, sorted by user; columns as in ANSWERS."""
    rows = [
        (q.user, q.target, v.chosen, v.valid, v.prompt, v.text, v.seconds)
        for q, v in zip(questions, verdicts, strict=True)
    ]
    return pl.DataFrame(rows, schema=ANSWERS, orient="row").sort("user")


def main() -> str:
    params = load_params()
    files = SPLIT / f"{params.pairs.history}.parquet", SPLIT / "items.parquet"
    histories, items = map(read_parquet, files)
    inputs = check_inputs(*files)
    titles = read_titles(items, params.language)
    if params.pairs.history == "full":
        print("pairs.history=full: fine-tuning sees validation and test items, which makes its metrics too good")
    questions = build_questions(histories)
    if not questions:
        file = f"{SPLIT}/{params.pairs.history}.parquet"
        raise InputError(f"{file} has no history of two items to ask about: use a dataset with longer histories")

    make_judge, name = find_judge(params.llm)
    judge = make_judge(
        JudgeSettings(
            name=name,
            language=params.language,
            seed=params.seed,
            pairs=params.pairs,
            ollama=params.ollama,
            openai=params.openai,
            journals=cache_folder("answers"),
        )
    )
    verdicts, statistics = judge.choose(questions, titles) if any(titles) else ([Verdict(None)] * len(questions), {})
    answers = answers_table(questions, verdicts)
    pairs = answers.filter(pl.col("chosen").is_not_null()).select("user", "target", similar="chosen")
    if pairs.is_empty() and any(titles):
        mend = "lower pairs.threshold or use another judge" if params.llm == "lexical" else "use another judge"
        raise InputError(f"llm={params.llm} found no similar pair: {mend}")
    write_parquet(Path("artifacts/answers.parquet"), answers)
    write_parquet(Path("artifacts/pairs.parquet"), pairs, inputs)
    invalid = answers.height - int(answers["valid"].sum())
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
            **statistics,
        },
    )
    counts = f"{pairs.height:,} pairs from {len(histories):,} histories"
    return counts + (f", {invalid:,} invalid answers" if invalid else "") + f", llm={params.llm}"


if __name__ == "__main__":
    run_stage(main)
