import json

import polars as pl
import pytest

from stages.tables import figures


def table(name: str, deviation: float | None) -> dict[str, object]:
    value = {"ndcg@10": {"mean": 0.5, "sd": deviation}}
    rows = {row: {"kept": value, "filtered": value} for row in ("0.2", "0.1")}
    return {"table": name, "title": "A title", "dataset": "sample", "rows": rows}


@pytest.mark.parametrize(
    ("name", "column", "path"),
    [
        ("fig3_alpha", "alpha", "metrics/sweeps/alpha/sample.csv"),
        ("table7", "row", "metrics/figures/table7_sample.csv"),
    ],
)
def test_a_table_is_drawn_with_its_deviations(tmp_path, monkeypatch, name, column, path):
    monkeypatch.chdir(tmp_path)
    figures.write_figure(table(name, 0.125))
    drawn = pl.read_csv(path)
    assert drawn.columns == ["title", column, "protocol", "ndcg@10", "low", "high"]
    assert drawn["title"].unique().to_list() == ["A title, sample"]
    assert drawn.select("ndcg@10", "low", "high").unique().row(0) == (0.5, 0.375, 0.625)


def test_one_seed_has_no_deviation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figures.write_figure(table("table7", None))
    assert pl.read_csv("metrics/figures/table7_sample.csv")["low"].null_count() == 4


def test_all_figures_are_written_again_from_the_tables_in_the_order_of_the_registry(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "metrics/tables"
    folder.mkdir(parents=True)
    (folder / "fig3_alpha_sample.json").write_text(json.dumps(table("fig3_alpha", 0.125)))
    figures.main()
    assert pl.read_csv("metrics/sweeps/alpha/sample.csv")["alpha"].to_list() == [0.1, 0.2, 0.1, 0.2]
