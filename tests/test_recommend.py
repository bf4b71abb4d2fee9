import json
import sys
from pathlib import Path

import polars as pl
import pytest

from stages import recommend
from stages.errors import InputError


def run(monkeypatch, capsys, *arguments: str) -> list[dict]:
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["recommend", *arguments, "--json"])
    recommend.main()
    return json.loads(capsys.readouterr().out)


def raw_ids() -> list[str]:
    return pl.read_parquet("artifacts/split/items.parquet")["raw_id"].to_list()


def test_it_ranks_unseen_items_best_first(after, monkeypatch, capsys):
    after("posttrain")
    history = raw_ids()[:3]
    rows = run(monkeypatch, capsys, "--history", *history, "--top", "5")
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert not {row["raw_id"] for row in rows} & set(history)


def test_everything_may_be_asked_for_with_or_without_the_history(after, monkeypatch, capsys):
    after("posttrain")
    history = raw_ids()[:3]
    assert len(run(monkeypatch, capsys, "--history", *history, "--top", "999")) == 40 - 3
    rows = run(monkeypatch, capsys, "--history", *history, "--top", "999", "--keep-viewed")
    assert {row["raw_id"] for row in rows} == set(raw_ids())


def test_the_ranking_is_the_one_that_evaluation_uses(after, monkeypatch, capsys):
    after("evaluate")
    train, valid, test = (pl.read_parquet(f"artifacts/split/{name}.parquet") for name in ("train", "valid", "test"))
    ids, user = raw_ids(), 5
    history = [ids[item - 1] for item in [*train["items"][user], valid["item"][user]]]
    rows = run(monkeypatch, capsys, "--history", *history, "--top", "999")
    place = next(row["rank"] for row in rows if row["raw_id"] == ids[test["item"][user] - 1])
    assert place == pl.read_parquet("artifacts/ranks/sicsrec.parquet")["rank_filtered"][user]


def test_ids_are_found_by_words(after, monkeypatch, capsys):
    after("posttrain")
    title = pl.read_parquet("artifacts/split/items.parquet")["title_zh"][7]
    rows = run(monkeypatch, capsys, "--titles", title)
    assert raw_ids()[7] in {row["raw_id"] for row in rows}
    assert all(title in row["title"] for row in rows)


def test_unknown_ids_are_named(after, monkeypatch):
    after("posttrain")
    monkeypatch.setattr(sys, "argv", ["recommend", "--history", raw_ids()[0], "nobody", "v999999"])
    with pytest.raises(InputError, match="has no nobody, v999999: find ids with --titles WORD"):
        recommend.main()


def test_without_a_model_it_says_what_to_run(after, monkeypatch):
    after("posttrain")
    Path("artifacts/sicsrec.safetensors").unlink()
    monkeypatch.setattr(sys, "argv", ["recommend", "--history", raw_ids()[0]])
    with pytest.raises(InputError, match="sicsrec.safetensors is missing: run `dvc repro`"):
        recommend.main()


def call(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["recommend", *arguments])
    recommend.main()


def test_a_file_for_all_users_has_what_each_of_them_gets_alone(after, monkeypatch, capsys):
    after("posttrain")
    call(monkeypatch, "--users", "all", "--top", "5", "--out", "recommendations.parquet")
    assert capsys.readouterr().out == "recommendations.parquet: 400 recommendations for 80 users\n"
    rows = pl.read_parquet("recommendations.parquet")
    assert rows.columns == ["user", "item", "rank", "score", "basis"]
    full, ids = pl.read_parquet("artifacts/split/full.parquet"), raw_ids()
    history = [ids[item - 1] for item in full["items"][7]]
    alone = run(monkeypatch, capsys, "--history", *history, "--top", "5")
    mine = rows.filter(pl.col("user") == full["raw_id"][7])
    assert mine["item"].to_list() == [row["raw_id"] for row in alone]
    assert mine["score"].to_list() == pytest.approx([row["score"] for row in alone], abs=1e-5)


def test_new_clicks_from_a_file_count_for_known_and_new_users(after, monkeypatch):
    after("posttrain")
    first, second = raw_ids()[:2]
    Path("clicks.csv").write_text(f"user,item\nnew,{first}\nnew,{second}\nnobody,\n")
    call(monkeypatch, "--histories", "clicks.csv", "--top", "3", "--out", "out.csv")
    rows = pl.read_csv("out.csv")
    assert rows.group_by("user", "basis", maintain_order=True).len().rows() == [
        ("new", "history", 3),
        ("nobody", "popularity", 3),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--users", "all"], "--out FILE is missing"),
        (["--users", "all", "--out", "a.txt"], "the suffix decides the format"),
        (["--users", "users.csv", "--out", "a.csv"], "full.parquet has no stranger .*--ignore-unknown"),
        (["--histories", "clicks.csv", "--out", "a.csv"], "items.parquet has no x9"),
        (["--users", "all", "--top", "0", "--out", "a.csv"], "--top 0: ask for one item or more"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_anything_is_written(arguments, message, after, monkeypatch):
    after("posttrain")
    Path("users.csv").write_text("user\nstranger\n")
    Path("clicks.csv").write_text("user,item\na,x9\n")
    with pytest.raises(InputError, match=message):
        call(monkeypatch, *arguments)
    assert not list(Path().glob("a.*"))


def test_a_model_of_another_split_is_refused(after, monkeypatch):
    workspace = after("posttrain")
    workspace.set_params(split={"min_interactions": 6})
    workspace.run("split")
    with pytest.raises(InputError, match="do not belong together.*run `dvc repro posttrain`"):
        call(monkeypatch, "--users", "all", "--out", "a.csv")


def test_similar_items_come_with_titles(after, monkeypatch, capsys):
    after("posttrain")
    rows = run(monkeypatch, capsys, "--similar", raw_ids()[0], "--by", "text", "--top", "3")
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert all(row["title"] for row in rows)
    assert raw_ids()[0] not in {row["raw_id"] for row in rows}


def test_an_explanation_adds_columns_and_changes_no_recommendation(after, monkeypatch, capsys):
    after("posttrain")
    history = raw_ids()[:5]
    plain = run(monkeypatch, capsys, "--history", *history)
    explained = run(monkeypatch, capsys, "--history", *history, "--explain")
    assert [{name: row[name] for name in plain[0]} for row in explained] == plain
    for row in explained:
        assert row["id"] + row["content"] + row["both"] + row["rest"] == pytest.approx(row["score"], abs=1e-5)
        assert len(row["leans_on"]) == 3
        assert set(row["leans_on"]) <= set(history)


def test_an_unknown_similar_item_is_named(after, monkeypatch):
    after("posttrain")
    with pytest.raises(InputError, match="--similar: .* has no nobody: find ids with --titles WORD"):
        call(monkeypatch, "--similar", "nobody")
