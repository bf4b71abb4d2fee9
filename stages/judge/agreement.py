"""How often two judges agree on the same histories: `python -m stages.judge.agreement A B`.

A and B: a file written as `artifacts/answers.parquet`, or a git revision or experiment name that has one.
"""

import argparse
import io
import json
from pathlib import Path
from typing import Any

import dvc.api
import polars as pl
from dvc.exceptions import DvcException
from dvc.scm import SCMError
from sklearn.metrics import cohen_kappa_score

from stages.errors import InputError, run_stage

ANSWERS = "artifacts/answers.parquet"
NONE = -1
LEAST_COMMON = 0.5  # share of the smaller file's questions that both files must have


def read_answers(place: str) -> pl.DataFrame:
    """The answers in a file or of a revision. Raises InputError if there are none."""
    if Path(place).is_file():
        return pl.read_parquet(place)
    try:
        return pl.read_parquet(io.BytesIO(dvc.api.read(ANSWERS, rev=place, mode="rb")))
    except (DvcException, SCMError, OSError) as error:
        raise InputError(f"{place} is neither a file nor a revision with {ANSWERS}: {error}") from error


def agreement(a: pl.DataFrame, b: pl.DataFrame) -> dict[str, Any]:
    """Agreement over the histories for which both judges gave a valid answer.

    same: share of equal choices, "none" counted as a choice. kappa: Cohen's κ of the choices, each item a category.
    kappa_none: Cohen's κ of whether there is a similar item at all. Raises InputError if the two were asked different
    questions.
    """
    common = a.join(b, on=["user", "target"], suffix="_b")
    if len(common) < LEAST_COMMON * min(len(a), len(b)) or common.is_empty():
        raise InputError(
            f"{len(common)} of {len(a)} and {len(b)} histories are the same: compare runs on one dataset and split"
        )
    both = common.filter(pl.col("valid") & pl.col("valid_b")).fill_null(NONE)
    if both.is_empty():
        raise InputError("there is no history for which both judges gave a valid answer")
    left, right = both["chosen"].to_numpy(), both["chosen_b"].to_numpy()
    return {
        "histories": len(both),
        "same": float((left == right).mean()),
        "kappa": _kappa(left, right),
        "kappa_none": _kappa(left == NONE, right == NONE),
        "none": [float((left == NONE).mean()), float((right == NONE).mean())],
    }


def _kappa(left: Any, right: Any) -> float | None:
    """Cohen's κ; None if all answers of both are the same, for which it is not defined."""
    if len(set(left) | set(right)) == 1:
        return None
    return float(cohen_kappa_score(left, right))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.judge.agreement", description=__doc__)
    parser.add_argument("a")
    parser.add_argument("b")
    arguments = parser.parse_args()
    print(json.dumps(agreement(read_answers(arguments.a), read_answers(arguments.b)), indent=2))


if __name__ == "__main__":
    run_stage(main, options=True)
