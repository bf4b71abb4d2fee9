import numpy as np
import pytest

from stages.tables.comparison import as_markdown, as_text, compare, compare_systems

RNG = np.random.default_rng(0)
GOOD, BAD = RNG.integers(1, 15, size=400), RNG.integers(1, 200, size=400)
RANKS = {"sicsrec": GOOD, "id_encoder": GOOD.copy(), "gru4rec": BAD}


def test_a_clear_difference_is_significant_and_equal_ranks_are_not():
    systems = compare(RANKS, resamples=999, seed=0)["systems"]
    assert systems["gru4rec"]["p"] < 0.05
    assert systems["id_encoder"]["p"] == 1.0
    assert "p" not in systems["sicsrec"]


def test_the_improvement_is_over_the_best_other_system():
    best = compare(RANKS, resamples=99, seed=0)["best_other"]["ndcg@10"]
    assert best == {"system": "id_encoder", "improvement": 0.0}


def test_a_sum_of_systems_is_tested_but_is_not_the_best_other_system():
    compared = compare(RANKS | {"fused": np.ones_like(GOOD)}, resamples=999, seed=0)
    assert compared["systems"]["fused"]["p"] < 0.05
    assert compared["best_other"]["ndcg@10"]["system"] == "id_encoder"


def test_the_text_fits_a_terminal_and_marks_significant_differences():
    table = compare_systems(RANKS, RANKS, "sample", resamples=999, seed=0)
    lines = as_text(table).splitlines()
    assert max(map(len, lines)) <= 80
    stars = {line.split()[0]: line.count("*") for line in lines[2:-1]}
    assert stars == {"SICSRec": 0, "ID": 0, "gru4rec": 2}  # in both protocols
    values = table["viewed_items_kept"]["systems"]["sicsrec"]
    assert lines[2].split()[1:3] == [f"{values['ndcg@10']:.4f}", f"{values['hit@10']:.4f}"]


@pytest.mark.parametrize("dataset", ["sample", "Bili_Food"])
def test_the_table_has_one_row_per_system_with_both_protocols(dataset):
    table = compare_systems(RANKS, RANKS, dataset, resamples=99, seed=0)
    lines = as_markdown(table).splitlines()
    rows = [line for line in lines if line.startswith(("| sicsrec", "| id_encoder", "| gru4rec"))]
    assert len(rows) == 3
    widths = {line.count("|") for line in lines if line.startswith("|")}
    assert widths == {11}
    assert ("0.1064" in rows[0]) == (dataset == "Bili_Food")
