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
    rows = run(monkeypatch, capsys, "--history", *history, "--top", "999", "--viewed")
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
