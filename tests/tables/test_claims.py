"""A claim's effect is read from the right rows, in the right direction."""

import numpy as np
import pytest

from stages.tables.claims import BEST_OTHER, PAPER_CLAIMS, Claim, Effect, claim_cells, effect, in_words
from stages.tables.markdown import p_cell
from stages.tables.registry import TABLES
from stages.tables.summary import Runs, summarise
from stages.training.metrics import per_user_metrics

RNG = np.random.default_rng(1)
GOOD = RNG.integers(1, 12, size=400)
BAD = np.minimum(GOOD + RNG.integers(0, 6, size=400), 100)


def runs(ranks: np.ndarray) -> Runs:
    metrics = {1: per_user_metrics(ranks)}
    return Runs({"kept": metrics, "filtered": metrics}, {1: 5}, {"abc1234"})


def table(name: str, **rows: np.ndarray) -> dict:
    given = {row.name: runs(rows[row.name]) if row.name in rows else Runs() for row in TABLES[name].rows}
    return summarise(TABLES[name], given, name=name, dataset="Bili_Food", resamples=500, seed=0)


def test_a_claim_is_told_the_same_whichever_row_is_the_reference():
    made = table("table4", sicsrec=GOOD, sasrec=BAD)  # sicsrec is the reference
    found = effect(Claim("", "table4", "sicsrec", "sasrec"), made, "kept")
    good, bad = (per_user_metrics(ranks)["ndcg@10"] for ranks in (GOOD, BAD))
    assert found.gain == pytest.approx(good.mean() / bad.mean() - 1)
    assert found.interval[0] < found.gain < found.interval[1]
    assert found.verdict() == "holds"
    other = effect(Claim("", "table4", "sasrec", "sicsrec"), made, "kept")
    assert other.gain == pytest.approx(bad.mean() / good.mean() - 1)
    assert other.verdict() == "reversed"


def test_no_other_system_of_the_paper_leaves_the_claim_out():
    made = table("table4", sicsrec=GOOD, pop=BAD)
    assert effect(Claim("", "table4", "sicsrec", BEST_OTHER), made, "kept") is None


def test_what_the_test_does_not_confirm_is_not_shown():
    made = table("table4", sicsrec=GOOD, sasrec=GOOD[::-1].copy())
    assert effect(Claim("", "table4", "sicsrec", "sasrec"), made, "filtered").verdict() == "not shown"


def test_the_best_other_system_is_one_of_the_paper_and_is_named():
    made = table("table4", sicsrec=BAD, sasrec=BAD + 3, gru4rec=BAD + 1, itemknn=GOOD)
    found = effect(Claim("", "table4", "sicsrec", BEST_OTHER), made, "kept")
    assert found.over == "gru4rec"
    rows = list(claim_cells(PAPER_CLAIMS, {"table4": {"Bili_Food": made}}, ["Bili_Food"], {"gru4rec": "GRU4Rec"}))
    cells = next(row for row in rows if row[0] == "SICSRec is ahead of the best other system")
    assert " over GRU4Rec, p " in cells[1]


def test_a_row_that_was_not_run_gives_no_effect():
    made = table("table4", sicsrec=GOOD, sasrec=BAD)
    assert effect(Claim("", "table4", "sicsrec", "bert4rec"), made, "kept") is None
    assert in_words(None, name=None) == ""


def test_an_effect_in_words_has_its_interval_and_p():
    assert (
        in_words(Effect("sasrec", 0.1, (0.05, 0.151), 0.004), name=None) == "holds: +10.0% (+5.0% to +15.1%), p 0.004"
    )
    assert in_words(Effect("sasrec", -0.1, None, 0.004), name="SASRec") == "reversed: -10.0% over SASRec, p 0.004"


def test_a_p_value_that_rounds_to_the_threshold_is_not_shown_as_equal_to_it():
    assert in_words(Effect("sasrec", 0.1, None, 0.04995), name=None) == "holds: +10.0%, p <0.050"
    assert in_words(Effect("sasrec", 0.1, None, 0.0502), name=None) == "not shown: +10.0%, p 0.050"
    assert (p_cell(0.04995), p_cell(0.0502)) == ("**<0.050**", "0.050")


def test_rows_of_different_seeds_give_no_effect():
    given = {row.name: Runs() for row in TABLES["table4"].rows} | {"sicsrec": runs(GOOD), "sasrec": runs(BAD)}
    for protocol in given["sasrec"].metrics:
        given["sasrec"].metrics[protocol] = {2: per_user_metrics(BAD)}
    given["sasrec"].epochs = {2: 5}
    made = summarise(TABLES["table4"], given, name="table4", dataset="Bili_Food", resamples=100, seed=0)
    assert effect(Claim("", "table4", "sicsrec", "sasrec"), made, "kept") is None


def test_a_dataset_on_which_no_claim_was_run_has_no_column():
    made = {"Bili_Food": table("table4", sicsrec=GOOD, sasrec=BAD), "MyShop": table("table4", sicsrec=GOOD, pop=BAD)}
    head, *rows = claim_cells(PAPER_CLAIMS, {"table4": made}, list(made), {})
    assert head == ["claim", "Bili_Food, kept", "Bili_Food, filtered"]
    assert {len(row) for row in rows} == {3}
