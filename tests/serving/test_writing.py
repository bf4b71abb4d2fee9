from pathlib import Path

import polars as pl
import pytest

from stages.errors import InputError
from stages.serving import writing
from stages.serving.recommendations import Choice, recommend_items
from stages.serving.requests import Requests
from stages.serving.trained import ITEMS, SICSREC
from stages.serving.writing import check_output, write_recommendations
from tests.serving.test_recommendations import HISTORIES, requests

CHOICE = Choice(top=3)
READERS = {".parquet": pl.read_parquet, ".csv": pl.read_csv, ".jsonl": pl.read_ndjson}


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr(writing, "ROWS_PER_PART", 6)  # two users
    for path in (ITEMS, SICSREC.weights):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"read for the name of the parts' folder only")


def parts() -> list[Path]:
    return sorted(Path(".cache/training").rglob("*.parquet"))


@pytest.mark.parametrize("suffix", READERS)
def test_the_file_has_the_recommendations_of_all_parts_in_order(trained, suffix):
    path = Path(f"folder/recommendations{suffix}")
    count = write_recommendations(path, trained, requests(**HISTORIES), CHOICE)
    expected = recommend_items(trained, requests(**HISTORIES), CHOICE)
    found = READERS[suffix](path).cast(expected.schema)
    assert found.drop("score").equals(expected.drop("score"))
    assert found["score"].to_list() == pytest.approx(expected["score"].to_list(), abs=1e-6, nan_ok=True)
    assert count == expected.height
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert not parts()


def interrupt_after(number: int, monkeypatch: pytest.MonkeyPatch) -> list[Requests]:
    """Ctrl-C once so many parts are made; the returned list receives the requests of each part."""
    asked: list[Requests] = []

    def recommend_until_interrupted(trained, part, choice):
        if len(asked) == number:
            raise KeyboardInterrupt
        asked.append(part)
        return recommend_items(trained, part, choice)

    monkeypatch.setattr(writing, "recommend_items", recommend_until_interrupted)
    return asked


def test_an_interrupted_run_goes_on_after_its_last_part_and_writes_no_half_file(trained, monkeypatch):
    path = Path("recommendations.csv")
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            write_recommendations(path, trained, requests(**HISTORIES), CHOICE)
    assert len(parts()) == 1
    assert not path.exists()
    asked = interrupt_after(99, monkeypatch)
    write_recommendations(path, trained, requests(**HISTORIES), CHOICE)
    assert [part.users.to_list() for part in asked] == [["b", "long"]]
    rows = pl.read_csv(path)
    assert rows["user"].unique(maintain_order=True).to_list() == list(HISTORIES)


def test_a_part_that_a_crash_damaged_is_made_again(trained, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            write_recommendations(Path("a.parquet"), trained, requests(**HISTORIES), CHOICE)
    parts()[0].write_bytes(bytes(parts()[0].stat().st_size))
    write_recommendations(Path("a.parquet"), trained, requests(**HISTORIES), CHOICE)
    write_recommendations(Path("b.parquet"), trained, requests(**HISTORIES), CHOICE)
    assert pl.read_parquet("a.parquet").equals(pl.read_parquet("b.parquet"))


def test_parts_of_other_histories_are_not_taken(trained, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            write_recommendations(Path("a.csv"), trained, requests(**HISTORIES), CHOICE)
    asked = interrupt_after(99, monkeypatch)
    write_recommendations(Path("a.csv"), trained, requests(**(HISTORIES | {"b": [6]})), CHOICE)
    assert len(asked) == 2


def test_an_unknown_suffix_is_refused():
    with pytest.raises(InputError, match=r"--out a.xlsx: the suffix decides .* \.parquet, \.csv, \.jsonl"):
        check_output(Path("a.xlsx"))


def test_a_folder_is_not_replaced_by_a_file():
    Path("recommendations.csv").mkdir()
    with pytest.raises(InputError, match="--out recommendations.csv: this is a folder: name a file"):
        check_output(Path("recommendations.csv"))


def test_a_second_process_with_the_same_requests_is_refused(trained, monkeypatch):
    def meanwhile(*arguments):
        with pytest.raises(InputError, match="are being written by another process"):
            write_recommendations(Path("b.csv"), trained, requests(**HISTORIES), CHOICE)
        return recommend_items(*arguments)

    monkeypatch.setattr(writing, "recommend_items", meanwhile)
    assert write_recommendations(Path("a.csv"), trained, requests(**HISTORIES), CHOICE)
    assert not Path("b.csv").exists()


def test_parts_do_not_grow_smaller_than_the_catalogue_asks_for(trained, monkeypatch):
    monkeypatch.setattr(writing, "ROWS_PER_PART", 2 * trained.items.height)
    asked = interrupt_after(99, monkeypatch)
    write_recommendations(Path("a.csv"), trained, requests(**HISTORIES), Choice(top=10**6))
    assert max(len(part.users) for part in asked) == 2


def test_a_path_below_a_file_is_refused():
    Path("notes.txt").write_text("mine")
    with pytest.raises(InputError, match="--out notes.txt/a.csv: notes.txt is a file, not a folder"):
        check_output(Path("notes.txt/a.csv"))


def test_a_path_below_a_link_to_nothing_is_refused():
    Path("link").symlink_to("nowhere")
    with pytest.raises(InputError, match="--out link/a.csv: link is a link to nothing"):
        check_output(Path("link/a.csv"))
