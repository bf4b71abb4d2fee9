import polars as pl
import pytest

from stages.errors import InputError
from stages.judge.agreement import agreement, read_answers


def answers(chosen: list[int | None], valid: list[bool] | None = None) -> pl.DataFrame:
    users = range(len(chosen))
    columns = {
        "user": users,
        "target": [90 + u for u in users],
        "chosen": chosen,
        "valid": valid or [True] * len(chosen),
    }
    return pl.DataFrame(columns, schema={"user": pl.Int32, "target": pl.Int32, "chosen": pl.Int32, "valid": pl.Boolean})


def test_a_judge_agrees_with_itself():
    result = agreement(answers([1, 2, None]), answers([1, 2, None]))
    assert (result["same"], result["kappa"], result["kappa_none"]) == (1.0, 1.0, 1.0)


def test_kappa_is_agreement_beyond_chance():
    left, right = [1, 1, 2, None], [1, 2, 2, None]
    result = agreement(answers(left), answers(right))
    observed = 3 / 4
    chance = (2 * 1 + 1 * 2 + 1 * 1) / 16  # shares of 1, 2 and none
    assert result["same"] == observed
    assert result["kappa"] == pytest.approx((observed - chance) / (1 - chance))
    assert result["none"] == [0.25, 0.25]


def test_invalid_answers_are_not_compared():
    result = agreement(answers([1, None, 3], [True, False, True]), answers([1, 2, 4]))
    assert result["histories"] == 2
    assert result["same"] == 0.5


def test_one_answer_throughout_has_no_kappa():
    assert agreement(answers([None, None]), answers([None, None]))["kappa"] is None


def test_other_histories_are_refused():
    with pytest.raises(InputError, match="0 of 1 and 1 histories are the same"):
        agreement(answers([1]), answers([1]).with_columns(user=pl.lit(7, pl.Int32)))


def test_two_datasets_with_an_accidental_match_are_refused():
    left = answers([1, 2, 3])
    right = left.with_columns(target=pl.Series([90, 50, 51], dtype=pl.Int32))
    with pytest.raises(InputError, match="1 of 3 and 3 histories are the same: compare runs on one dataset"):
        agreement(left, right)


def test_a_part_of_the_histories_is_enough():
    assert agreement(answers([1, 2, 3, 4]), answers([1, 2]))["histories"] == 2


def test_judges_without_a_valid_answer_in_common_are_refused():
    with pytest.raises(InputError, match="no history for which both judges gave a valid answer"):
        agreement(answers([1, 2], [True, False]), answers([1, 2], [False, True]))


def test_the_answers_of_a_stage_are_read_and_a_wrong_name_is_named(after):
    after("pairs")
    frame = read_answers("artifacts/answers.parquet")
    assert agreement(frame, frame)["same"] == 1.0
    with pytest.raises(InputError, match="no-such-place is neither a file nor a revision"):
        read_answers("no-such-place")
