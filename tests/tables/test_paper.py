import json

import pytest

from stages.tables.paper import PAPER, paper_values
from stages.tables.registry import TABLES


@pytest.mark.parametrize(
    ("table", "dataset", "row", "metric", "value"),
    [
        ("table4", "Bili_Food", "sicsrec", "ndcg@10", 0.1064),
        ("table4", "Bili_Dance", "sasrec", "ndcg@10", 0.1179),
        ("table4", "Bili_Movie", "missrec_tv_id", "hit@5", 0.0764),
        ("table5", "Bili_Food", "Qwen", "hit@10", 0.2054),
        ("table6", "Bili_Movie", "Sentence-T5&Swin", "ndcg@10", 0.0638),
        ("table7", "Bili_Cartoon", "without IMSE", "ndcg@10", 0.0622),
        ("table8", "Bili_Food", "SICSRec T+V", "ndcg@10", 0.1092),
        ("table9", "Bili_Food", "fixed ConEnc", "epochs", 135),
    ],
)
def test_values_are_those_of_the_paper(table, dataset, row, metric, value):
    assert paper_values(table, dataset, row)[metric] == value


def test_a_value_that_the_paper_does_not_report_is_none():
    assert paper_values("table4", "Bili_Food", "itemknn") is None
    assert paper_values("table4", "sample", "sicsrec") is None
    assert paper_values("fig3_alpha", "Bili_Food", "0.2") is None


@pytest.mark.parametrize("table", [name for name in TABLES if name.startswith("table")])
def test_every_row_of_the_paper_is_in_the_registry(table):
    rows = {row.name for row in TABLES[table].rows}
    for rows_of_paper in json.loads(PAPER.read_text())[table].values():
        assert set(rows_of_paper) <= rows
