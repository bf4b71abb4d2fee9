"""Files between stages: atomic writes, readable errors for what is missing, and the cache that outlives a run."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stages.errors import InputError
from stages.provenance import Ids, as_metadata, damaged, frame_id


def project_root() -> Path:
    """The main workspace, also under `dvc exp run --temp` and in the queue, where the working folder is a copy."""
    return Path(os.environ.get("DVC_ROOT", "."))


def cache_folder(name: str) -> Path:
    """A folder under `.cache/` of the main workspace: DVC removes a stage's outputs before a run, never this."""
    folder = project_root() / ".cache" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def user_path(text: str) -> Path:
    """A path that a user wrote in params.yaml: relative ones start at the main workspace, not at a copy of it."""
    return project_root() / Path(text).expanduser()


def is_main_process() -> bool:
    """Whether this is the process that writes: the only one, or the first of those that `launch` started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary name (of a file or a folder) beside `path`, renamed to `path` when the block succeeds.

    Of several processes only the first renames; what the others wrote is thrown away. A folder replaces a folder;
    InputError where a file would replace one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.environ.get('RANK', 0)}.{os.getpid()}.tmp")
    try:
        yield temporary
        if is_main_process():
            if path.is_dir() and not temporary.is_dir():
                raise InputError(f"{path} is a folder: name a file")
            if path.is_dir():
                shutil.rmtree(path)
            temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as stable, sorted JSON; NaN and infinity are refused (ValueError), as JSON has neither."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a stage's JSON file; InputError names the file when it is missing or damaged."""
    if not path.is_file():
        raise InputError(f"{path} is missing: run `dvc repro` to make it")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(path, error) from error
    return content


def write_parquet(path: Path, frame: pl.DataFrame, inputs: Ids | None = None) -> None:
    """Write a frame with the same bytes for the same content.

    inputs: of `check_inputs`, recorded in the file beside an id of its own; None for a file that needs no record.
    """
    metadata = None if inputs is None else as_metadata(frame_id(frame), inputs)
    with atomic(path) as temporary:
        frame.write_parquet(temporary, compression="zstd", statistics=False, metadata=metadata)


def write_csv(path: Path, frame: pl.DataFrame) -> None:
    """Write a table that `dvc plots` draws."""
    with atomic(path) as temporary:
        frame.write_csv(temporary)


def read_parquet(path: Path) -> pl.DataFrame:
    """Read a stage's Parquet file; InputError names the file when it is missing or damaged."""
    if not path.is_file():
        raise InputError(f"{path} is missing: run `dvc repro` to make it")
    try:
        return pl.read_parquet(path)
    except pl.exceptions.ComputeError as error:
        raise damaged(path, error) from error


def read_cached(path: Path) -> pl.DataFrame | None:
    """Read a Parquet file of `.cache/`; None when it is missing, or damaged by a crash of the machine."""
    try:
        return pl.read_parquet(path) if path.is_file() else None
    except pl.exceptions.ComputeError:
        return None


def read_vectors(path: Path, columns: list[str]) -> dict[str, np.ndarray]:
    """Columns of fixed-size lists as matrices of their own: {column: (rows, width) float32}.

    Raises InputError when the file is missing or damaged, or has not all of the columns.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: run `dvc repro` to make it")
    try:
        if lacking := set(columns) - set(pq.read_schema(path).names):
            raise InputError(f"{path} has no column {min(lacking)}: run `dvc repro` to make it for these modalities")
        table = pq.read_table(path, columns=columns, memory_map=True)
    except pa.ArrowInvalid as error:
        raise damaged(path, error) from error
    lists = {name: table[name].combine_chunks() for name in columns}
    return {name: column.flatten().to_numpy().reshape(len(column), -1).copy() for name, column in lists.items()}
