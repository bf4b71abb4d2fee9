from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stages.errors import InputError
from stages.files import (
    atomic,
    cache_folder,
    read_json,
    read_parquet,
    read_vectors,
    user_path,
    write_json,
    write_parquet,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("")
    with atomic(path) as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("")
    assert [entry.name for entry in path.iterdir()] == ["new"]


def test_a_file_does_not_replace_a_folder(tmp_path):
    (tmp_path / "why.png").mkdir()
    (tmp_path / "why.png" / "kept.txt").write_text("kept")
    with pytest.raises(InputError, match="why.png is a folder: name a file"), atomic(tmp_path / "why.png") as temporary:
        temporary.write_text("new")
    assert [path.name for path in (tmp_path / "why.png").iterdir()] == ["kept.txt"]


def test_json_is_sorted_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": 0.5})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": 0.5,\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert '"b": 1' in (tmp_path / "a.json").read_text()


def test_the_same_frame_has_the_same_bytes(tmp_path):
    frame = pl.DataFrame({"a": [1, 2], "b": [[1], [2, 3]]})
    for name in ("x", "y"):
        write_parquet(tmp_path / name, frame)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    assert read_parquet(tmp_path / "x").equals(frame)


def test_a_missing_input_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match="dvc repro"):
        read_parquet(tmp_path / "none.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"<<<<<<< HEAD"])
def test_a_damaged_input_says_what_to_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    Path("artifacts").mkdir()
    path = Path("artifacts/embeddings.parquet")
    path.write_bytes(content)
    for read in (read_parquet, read_json, lambda path: read_vectors(path, ["text"])):
        with pytest.raises(InputError, match="artifacts/embeddings.parquet is damaged .*: run `dvc repro embed`"):
            read(path)


def test_vectors_come_back_as_matrices(tmp_path):
    matrix = np.arange(6, dtype=np.float32).reshape(3, 2)
    series = pl.Series(matrix, dtype=pl.Array(pl.Float32, 2))
    write_parquet(tmp_path / "vectors.parquet", pl.DataFrame({"text": series, "image": series}))
    vectors = read_vectors(tmp_path / "vectors.parquet", ["text"])
    assert list(vectors) == ["text"]
    np.testing.assert_array_equal(vectors["text"], matrix)


def test_vectors_of_a_modality_that_is_not_there_are_an_input_error(tmp_path):
    write_parquet(
        tmp_path / "vectors.parquet", pl.DataFrame({"text": pl.Series([[1.0]], dtype=pl.Array(pl.Float32, 1))})
    )
    with pytest.raises(InputError, match="vectors.parquet has no column image: run `dvc repro` to make it for"):
        read_vectors(tmp_path / "vectors.parquet", ["text", "image"])


def test_paths_start_at_the_main_workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert user_path("data") == tmp_path / "data"
    assert user_path("/data") == Path("/data")
    assert cache_folder("x") == tmp_path / ".cache" / "x"
