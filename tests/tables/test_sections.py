"""The parts of the page of results that show one table."""

from stages.tables import sections


def test_a_significant_difference_is_bold_and_the_reference_is_named():
    reference = {"kept": {"ndcg@10": {"mean": 0.10}}}
    row = {"kept": {"ndcg@10": {"mean": 0.11}, "p": 0.01}}
    assert sections.comparison(row, reference, "kept") == "**+10.0% (p 0.010)**"
    assert sections.comparison(row | {"kept": row["kept"] | {"p": 0.2}}, reference, "kept") == "+10.0% (p 0.200)"
    assert sections.comparison(reference, reference, "kept") == "reference"
    one = row | {"seeds": [2], "kept": row["kept"] | {"difference": [0.02, 0.2]}}
    assert sections.comparison(one, reference | {"seeds": [1, 2]}, "kept") == "**+2.0% to +20.0% (seed 2, p 0.010)**"


def test_groups_by_training_count_are_a_table_where_runs_have_them():
    groups = {"100+": {"users": 90, "hit@10": 0.1}, "20-99": {"users": 563, "hit@10": 0.0412}}  # as JSON sorts them
    rows = {"sicsrec": {"filtered": {"by_training_count": groups}}, "pop": {"filtered": {}}}
    lines = list(sections.by_training_count({"dataset": "Bili_Food", "rows": rows}))
    assert lines[2:] == [
        "| times in training (users) | 20-99 (563) | 100+ (90) |",
        "| --- | ---: | ---: |",
        "| SICSRec ID+T | 0.0412 | 0.1000 |",
        "",
    ]
    assert list(sections.by_training_count({"dataset": "Bili_Food", "rows": {"pop": rows["pop"]}})) == []


def test_rows_that_only_one_dataset_has_are_shown():
    kept = {"kept": {"ndcg@10": {"mean": 0.1}}, "filtered": {"ndcg@10": {"mean": 0.1}}, "paper": None}
    tables = {
        "Bili_Food": {"table": "table4", "reference": "sicsrec", "rows": {"sicsrec": kept}},
        "Bili_Dance": {"table": "table4", "reference": "sicsrec", "rows": {"sicsrec": kept, "bert4rec": kept | {}}},
    }
    lines = list(sections.differences(tables))
    (row,) = [line for line in lines if line.startswith("| BERT4Rec")]
    assert row.split(" | ")[1:4] == ["", "", ""]
    assert "+0.0% (not tested)" in row


def test_other_datasets_stand_after_those_of_ninerec_and_the_sample_is_called_made_up():
    reference = {"kept": {"ndcg@10": {"mean": 0.1}}, "filtered": {"ndcg@10": {"mean": 0.2}}, "paper": None}
    tables = {
        name: {"table": "fig3_alpha", "reference": "0.2", "rows": {"0.2": reference}}
        for name in ("sample", "MyShop", "Bili_Dance")
    }
    head, _, row = sections.differences(tables)
    assert head.count("Bili_Dance: kept | filtered | paper | MyShop: kept | filtered | paper | sample (made up): kept")
    assert row == "| 0.2 " + "| reference | reference |  " * 3 + "|"


def test_without_the_reference_s_runs_a_row_shows_its_own_mean():
    row = {"kept": {"ndcg@10": {"mean": 0.1}}, "paper": None}
    assert sections.comparison(row, None, "kept") == "0.1000 (reference not run)"
    assert sections.paper_comparison(row, None) == ""


def test_latencies_stand_by_batch_size_and_empty_where_none_was_measured():
    rows = [
        {"system": "sasrec", "batch": 4, "median_ms": 2.26},
        {"system": "sasrec", "batch": 1, "median_ms": 0.96},
        {"system": "end to end", "batch": 1, "median_ms": 3.7},
    ]
    _, _, *lines = sections.latency_table(rows)
    assert lines == ["| sasrec | 1.0 | 2.3 |", "| end to end | 3.7 |  |"]
