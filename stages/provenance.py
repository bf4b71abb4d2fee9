"""Which artifacts belong together: each carries an id of its content and the ids of those that it was made from.

A stage checks what it reads (`check_inputs`) and records it in what it writes. So a dataset that was split again after
training, an interrupted `dvc repro` or a partial `dvc checkout` is refused, not mixed.
"""

import hashlib
import json
from pathlib import Path

import polars as pl
import pyarrow as pa

from stages.errors import InputError

KEY = "provenance"  # in the metadata of Parquet files
MODEL_KEY = "model"  # in the metadata of safetensors files: JSON that has KEY and the model's configuration
SPLIT = "artifacts/split"
REFIT = "_refit"  # ends the name of the ranks of a system that was trained once more
MADE_BY = {  # path, or the start of it: the stage that writes it
    "artifacts/split": "split",
    "artifacts/pairs.parquet": "pairs",
    "artifacts/encoders": "sft",
    "artifacts/embeddings": "embed",
    "artifacts/neighbours": "neighbours",
    "artifacts/id_encoder.safetensors": "pretrain",
    "artifacts/sicsrec.safetensors": "posttrain",
    "artifacts/ranks/sicsrec_refit": "refit",
    "artifacts/ranks/id_encoder_refit": "refit",
    "artifacts/ranks/fused": "fuse",
    "artifacts/ranks/distilled": "distill",
    "artifacts/distilled.safetensors": "distill",
    "artifacts/ranks/sicsrec": "evaluate",
    "artifacts/ranks/id_encoder": "evaluate",
    "artifacts/cases.parquet": "evaluate",
    "artifacts/ranks": "baseline",
    "artifacts/baselines": "baseline",
}

Ids = dict[str, str]  # {path of an artifact: id of its content}


def frame_id(*frames: pl.DataFrame) -> str:
    """Hash of the content of frames: names, types and values, whatever their chunks in memory."""
    digest = hashlib.sha256()
    for frame in frames:
        sink = pa.PythonFile(_Hashing(digest), mode="w")
        table = frame.rechunk().to_arrow()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    return digest.hexdigest()[:16]


class _Hashing:
    """A file that feeds what is written to a hash."""

    closed = False

    def __init__(self, digest: "hashlib._Hash") -> None:
        self.digest = digest

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return len(data)

    def flush(self) -> None:
        pass


def folder_id(folder: Path) -> str:
    """Hash of the files of a folder, by name."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def record_folder(folder: Path, inputs: Ids) -> None:
    """Write the id of a folder's content, and its inputs, into the folder; to be called after all else is written."""
    content = as_metadata(folder_id(folder), inputs)[KEY]
    (folder / f"{KEY}.json").write_text(content + "\n", encoding="utf-8")


def as_metadata(own_id: str, inputs: Ids) -> dict[str, str]:
    """What an artifact carries, for the metadata of its file."""
    return {KEY: json.dumps({"id": own_id, "inputs": inputs}, sort_keys=True)}


def recorded(path: Path) -> tuple[str, Ids]:
    """Id and inputs that an artifact carries. Raises InputError when it is missing, damaged or carries none."""
    if not path.exists():
        raise InputError(f"{path} is missing: run `dvc repro` to make it")
    try:
        text = _record(path)
        content = None if text is None else json.loads(text)
    except (ValueError, pl.exceptions.ComputeError) as error:
        raise damaged(path, error) from error
    if content is None:
        raise InputError(
            f"{path} does not say what it was made from: run `dvc repro {stage_of(path)}` to make it again"
        )
    return content["id"], content["inputs"]


def _record(path: Path) -> str | None:
    if path.is_dir():
        return (path / f"{KEY}.json").read_text(encoding="utf-8") if (path / f"{KEY}.json").is_file() else None
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open  # imports torch's companions, which most stages do not need

        path.open("rb").close()  # PermissionError, where safetensors would say that there is no such file
        try:
            with safe_open(path, framework="np") as file:
                found: str | None = json.loads((file.metadata() or {}).get(MODEL_KEY, "{}")).get(KEY)
        except SafetensorError as error:
            raise damaged(path, error) from error
        return found
    return pl.read_parquet_metadata(path).get(KEY)


def damaged(path: Path, error: Exception) -> InputError:
    """What to raise for an artifact that was cut short or overwritten: names the stage that makes it again."""
    reason = " ".join(str(error).split())
    command = f"dvc repro {stage_of(path)}".strip()
    return InputError(f"{path} is damaged ({reason:.200}): run `{command}` to make it again")


def split_id(metadata: dict[str, str]) -> str | None:
    """The id of the split that a Parquet file goes back to, from the file's metadata; None without a record."""
    if (text := metadata.get(KEY)) is None:
        return None
    found: str | None = json.loads(text)["inputs"].get(SPLIT)
    return found


def stage_of(path: Path) -> str:
    """The stage that writes an artifact."""
    name = path.as_posix()
    stage = next((stage for start, stage in MADE_BY.items() if name.startswith(start)), "")
    if stage == "baseline" and path.stem.endswith(REFIT):
        return f"refit_baseline@{path.stem.removesuffix(REFIT)}"
    return f"baseline@{path.stem}" if stage == "baseline" else stage


def check_inputs(*paths: Path) -> Ids:
    """The ids of these artifacts and of all that they were made from, to be recorded in what is made from them.

    paths: upstream first. Raises InputError, naming the stage to run, when two of them were made from different
    versions of one artifact.
    """
    known: Ids = {}
    source: dict[str, Path] = {}
    for path in paths:
        own_id, inputs = recorded(path)
        for name, found in (inputs | {path.as_posix(): own_id}).items():
            if known.setdefault(name, found) != found:
                raise InputError(
                    f"{path} and {source[name]} do not belong together, they go back to different versions of {name}: "
                    f"run `dvc repro {stage_of(path)}`"
                )
            source.setdefault(name, path)
    return known
