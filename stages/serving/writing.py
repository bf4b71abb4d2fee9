"""Recommendations written to a file, a part after another: memory does not grow, and an interrupted run goes on."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import polars as pl
from filelock import FileLock, Timeout
from tqdm import tqdm

from stages.errors import InputError
from stages.files import atomic, read_cached, write_parquet
from stages.provenance import frame_id
from stages.serving.recommendations import Choice, RecommendingSystem, recommend_items
from stages.serving.requests import Requests
from stages.serving.trained import ITEMS
from stages.training.checkpoints import state_path

SINKS: dict[str, Callable[[pl.LazyFrame, Path], object]] = {
    ".parquet": lambda rows, path: rows.sink_parquet(path, compression="zstd"),
    ".csv": lambda rows, path: rows.sink_csv(path),
    ".jsonl": lambda rows, path: rows.sink_ndjson(path),
}
ROWS_PER_PART = 2**20


def check_output(path: Path) -> None:
    """Raise InputError when the suffix is not that of a format that we write, or the path cannot be a file's."""
    if path.suffix not in SINKS:
        raise InputError(f"--out {path}: the suffix decides the format: end the name in {', '.join(SINKS)}")
    check_place(f"--out {path}", path)


def check_place(named: str, path: Path) -> None:
    """Raise InputError when there cannot be a new file at `path`. named: how the message begins."""
    if path.is_dir():
        raise InputError(f"{named}: this is a folder: name a file")
    for parent in path.parents:
        if parent.is_symlink() and not parent.exists():
            raise InputError(f"{named}: {parent} is a link to nothing: choose another place")
        if parent.is_file():
            raise InputError(f"{named}: {parent} is a file, not a folder: choose another place")


def write_recommendations(path: Path, trained: RecommendingSystem, requests: Requests, choice: Choice) -> int:
    """Write the rows of `recommend_items` for all requests in the format of the suffix, and return how many.

    Parts are kept in `.cache/` until the file is whole; their folder is named by all that decides the result.
    """
    folder = _parts_folder(trained, requests, choice)
    with _only_process(folder):
        return _write(path, folder, trained, requests, choice)


@contextmanager
def _only_process(folder: Path) -> Iterator[None]:
    """Raise InputError when another process writes the same recommendations, to whatever file: they share the parts."""
    try:
        with FileLock(folder.with_suffix(".lock"), timeout=0):
            yield
    except Timeout:
        raise InputError("these recommendations are being written by another process: wait for it") from None


def _write(path: Path, folder: Path, trained: RecommendingSystem, requests: Requests, choice: Choice) -> int:
    folder.mkdir(exist_ok=True)
    users = max(1, ROWS_PER_PART // min(choice.top, trained.items.height))
    parts = [folder / f"{begin:012d}.parquet" for begin in range(0, len(requests.users), users)]
    with tqdm(total=len(requests.users), desc="recommend", unit=" users", disable=None) as bar:
        for number, part in enumerate(parts):
            chosen = requests.part(number * users, (number + 1) * users)
            if read_cached(part) is None:
                write_parquet(part, recommend_items(trained, chosen, choice))
            bar.update(len(chosen.users))
    rows = pl.scan_parquet(parts)
    with atomic(path) as temporary:
        SINKS[path.suffix](rows, temporary)
    count = int(rows.select(pl.len()).collect().item())
    shutil.rmtree(folder)
    return count


def _parts_folder(trained: RecommendingSystem, requests: Requests, choice: Choice) -> Path:
    lengths = pl.DataFrame({"raw_id": requests.users, "length": requests.histories.lengths})
    values = pl.DataFrame({"item": requests.histories.values})
    known = trained.known_items
    new = pl.DataFrame(trained.matrix[..., known:, :].flatten(0, -2).cpu().numpy())
    new = new.with_columns(raw_id=trained.items["raw_id"][known:])
    data = {"histories": frame_id(lengths, values), "new_items": frame_id(new), "max_length": trained.max_length}
    settings = asdict(choice) | data
    return state_path("recommend", settings, [ITEMS, *trained.files]).with_suffix("")
