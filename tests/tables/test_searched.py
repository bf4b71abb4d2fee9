"""The rows of the table `tuned` have the params that the searches found best."""

import pytest

from stages.errors import InputError
from stages.files import write_json
from stages.tables.registry import SASREC, SCORED_BY_CONTENT, TABLES, TUNED
from stages.tables.searched import SEARCHES, with_best_params

TABLE = TUNED["tuned"]


def write_search(system: str, *, monitor: str = "filtered.ndcg@10", trials: int = 2, **best: object) -> None:
    content = {"system": system, "dataset": "MyShop", "monitor": monitor, "best": best, "trials": [{}] * trials}
    write_json(SEARCHES / f"{system}_MyShop.json", content)


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_searched_row_has_the_best_params_beside_its_own_and_rows_without_a_search_are_left_out():
    write_search("id_encoder", dim=128)
    write_search("sicsrec", dim=64, tau=0.1)
    params = {row.name: row.params for row in with_best_params(TABLE, "MyShop").rows}
    assert params == {
        SASREC: {"monitor": "filtered.ndcg@10", "smoothing": 0, "dim": 128},
        SCORED_BY_CONTENT: {
            "monitor": "filtered.ndcg@10", "smoothing": 0, "content_weight": "auto", "dim": 64, "tau": 0.1,
        },
    }  # fmt: skip


def test_other_tables_stay_as_they_are():
    assert with_best_params(TABLES["table7"], "MyShop") is TABLES["table7"]


def test_without_any_search_the_command_is_named():
    with pytest.raises(InputError, match="no search of id_encoder, .* on MyShop: run `python -m stages.search SYSTEM"):
        with_best_params(TABLE, "MyShop")


def test_a_search_by_another_metric_is_refused():
    write_search("id_encoder", monitor="ndcg@10")
    with pytest.raises(InputError, match="id_encoder_MyShop.json was judged by ndcg@10: search again with monitor="):
        with_best_params(TABLE, "MyShop")


def test_systems_that_were_searched_longer_than_others_are_refused():
    write_search("id_encoder", trials=12)
    write_search("sicsrec", trials=3)
    with pytest.raises(InputError, match="sicsrec was searched by 3 trials, others by more: .* sicsrec --trials 12`"):
        with_best_params(TABLE, "MyShop")
