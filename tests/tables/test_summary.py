import numpy as np
import pytest

from stages.errors import InputError
from stages.tables.registry import TABLES
from stages.tables.summary import Runs, as_markdown, read_runs, summarise
from stages.training.metrics import per_user_metrics

RNG = np.random.default_rng(0)
GOOD = {seed: RNG.integers(1, 15, size=300) for seed in (1, 2, 3)}
BAD = {seed: RNG.integers(1, 200, size=300) for seed in (1, 2, 3)}


def runs(ranks: dict[int, np.ndarray]) -> Runs:
    metrics = {seed: per_user_metrics(values) for seed, values in ranks.items()}
    return Runs({"kept": metrics, "filtered": metrics}, dict.fromkeys(ranks, 17), {"abc1234"})


def table(**rows: Runs) -> dict:
    given = {row.name: rows.get(row.name.replace(" ", "_"), Runs()) for row in TABLES["table7"].rows}
    return summarise(TABLES["table7"], given, name="table7", dataset="Bili_Food", resamples=999, seed=0)


def test_a_cell_is_the_mean_and_the_deviation_over_seeds():
    made = table(SICSRec=runs(GOOD))
    each = [per_user_metrics(ranks)["ndcg@10"].mean() for ranks in GOOD.values()]
    assert made["rows"]["SICSRec"]["kept"]["ndcg@10"]["mean"] == pytest.approx(np.mean(each))
    assert made["rows"]["SICSRec"]["kept"]["ndcg@10"]["sd"] == pytest.approx(np.std(each, ddof=1))
    assert made["rows"]["SICSRec"]["seeds"] == [1, 2, 3]


def test_groups_by_training_count_are_averaged_over_the_seeds_that_have_them():
    given = runs(GOOD)
    rare = {"users": 1, "hit@10": 1.0}
    given.by_count["kept"] = {1: {"0": {"users": 4, "hit@10": 0.5}}, 2: {"0": {"users": 4, "hit@10": 0.1}, "1–4": rare}}
    made = table(SICSRec=given)["rows"]["SICSRec"]
    assert made["kept"]["by_training_count"] == {"0": {"users": 4, "hit@10": pytest.approx(0.3)}, "1–4": rare}
    assert "by_training_count" not in made["filtered"]


def test_one_seed_has_no_deviation():
    assert table(SICSRec=runs({1: GOOD[1]}))["rows"]["SICSRec"]["kept"]["ndcg@10"]["sd"] is None


def test_a_clear_difference_from_the_reference_is_bold_and_no_difference_is_not():
    made = table(SICSRec=runs(GOOD), without_MMSD=runs(BAD), without_LoRA=runs(GOOD))
    assert made["rows"]["without MMSD"]["kept"]["p"] < 0.05
    assert made["rows"]["without LoRA"]["kept"]["p"] == 1.0
    assert "p" not in made["rows"]["SICSRec"]["kept"]
    lines = {line.split("|")[1].strip(): line for line in as_markdown(made).splitlines() if line.startswith("|")}
    assert "**0.0" in lines["without MMSD"]
    assert "**" not in lines["without LoRA"]


def test_rows_are_tested_over_the_seeds_that_both_have():
    made = table(SICSRec=runs(GOOD), without_MMSD=runs({2: GOOD[2], 9: BAD[1]}))
    assert made["rows"]["without MMSD"]["kept"]["p"] == 1.0


def test_without_covers_the_reference_is_id_and_text():
    given = {row.name: Runs() for row in TABLES["table8"].rows}
    given |= {"SICSRec ID+T": runs(GOOD), "SICSRec T": runs(BAD)}
    made = summarise(TABLES["table8"], given, name="table8", dataset="Bili_Food", resamples=999, seed=0)
    assert made["rows"]["SICSRec T"]["kept"]["p"] < 0.05
    assert "this row and SICSRec ID+T have the same" in as_markdown(made)


def test_the_table_has_the_paper_s_values_and_lists_rows_without_runs():
    made = table(SICSRec=runs(GOOD))
    assert made["rows"]["SICSRec"]["paper"] == {"ndcg@10": 0.1064}
    assert "without IMSE" in made["missing"]
    assert "Not run: without IMSE" in as_markdown(made)
    assert "Run by the code of abc1234." in as_markdown(made)


def test_rows_ranked_for_different_users_are_refused():
    with pytest.raises(InputError, match="without MMSD and SICSRec were not ranked for the same users"):
        table(SICSRec=runs(GOOD), without_MMSD=runs({1: BAD[1][:200]}))


def test_without_experiments_a_row_has_no_runs():
    assert read_runs([], "sicsrec").epochs == {}
