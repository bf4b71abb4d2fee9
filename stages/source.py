"""Stage `source`: fingerprints of files outside the project. It runs in every `dvc repro` and reads no content."""

import json
import os
from pathlib import Path
from typing import Any

from stages.data.fingerprint import path_fingerprint, url_fingerprint
from stages.errors import InputError, run_stage
from stages.params import load_params
from stages.shallow_clone import refuse_experiment_in_shallow_clone

NINEREC = (
    "Bili_2M", "Bili_Food", "Bili_Dance", "Bili_Cartoon", "Bili_Movie", "Bili_Music", "KU", "QB", "TN", "DY",
)  # fmt: skip
OUTPUT = Path("metrics/source.json")
ENCODERS = Path("metrics/encoders.json")
ROOT = Path(os.environ.get("DVC_ROOT", "."))  # as stages.files.project_root, without the imports of stages.files
ARTIFACTS = ROOT / "artifacts"


def main() -> str:
    """Write metrics/source.json, on which `download` depends, and metrics/encoders.json, on which `sft` does.

    The one changes with the files of `source`, the other with those of encoders that are folders. What cannot be
    reached (a fresh clone, no network) counts as unchanged since the last time.
    """
    refuse_experiment_in_shallow_clone()  # here, because this is the one stage that every experiment runs
    params = load_params()
    refuse_what_does_not_go_together(params.dataset, params.source)
    encoders = {"text_encoder": params.text_encoder, "image_encoder": params.image_encoder}
    encoders_changed = _write_if_changed(ENCODERS, encoder_fingerprints(encoders, _recorded(ENCODERS)))
    encoder_note = "; an encoder is another, or its files have changed" if encoders_changed else ""
    source = params.source
    recorded = _recorded(OUTPUT)
    try:
        found = fingerprint(source)
    except OSError as error:
        if recorded.get("source") != source:
            raise InputError(f"source: {source} cannot be read ({error}): mend the path or the address") from error
        return f"{source} cannot be reached ({error}): taken as unchanged{encoder_note}"
    changed = _write_if_changed(OUTPUT, {"source": source, "fingerprint": found})
    return f"{params.dataset}: {'new, or changed since the last run' if changed else 'unchanged'}{encoder_note}"


def _recorded(file: Path) -> dict[str, Any]:
    """What the file has from the last time; {} without one. Raises InputError when it is damaged."""
    if not file.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # as after a merge with conflicts
        raise InputError(f"{file} is damaged ({error}): delete it, run again") from error
    return content


def _write_if_changed(file: Path, content: dict[str, Any]) -> bool:
    """Write `content` unless it is what the file has; whether it was written."""
    if content == _recorded(file):
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.new")  # a full disk leaves `file` as it was
    try:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def refuse_what_does_not_go_together(dataset: str, source: str) -> None:
    """Raise InputError for the built-in sample with a source, and for a dataset of the user's own without one."""
    if dataset == "sample" and source:
        raise InputError(
            f"source={source}: dataset=sample is built in and reads no source: set dataset=NAME, or empty source"
        )
    if dataset not in ("sample", *NINEREC) and not source:
        raise InputError(
            f"dataset={dataset} is none of NineRec's ({', '.join(NINEREC)}), and source is empty: set source to the "
            "folder, archive or address of the data"
        )


def fingerprint(source: str) -> str:
    """The fingerprint of a source; '' for the built-in sample and NineRec's official archive, which never change.

    Raises OSError when it cannot be reached; InputError when it is here but unreadable, lies among the artifacts or
    contains them, or its address is malformed.
    """
    if not source:
        return ""
    if source.startswith(("https://", "http://")):
        return url_fingerprint(source)
    place = _place("source", source)
    if ARTIFACTS.resolve().is_relative_to(place.resolve()):
        raise InputError(
            f"source={source} contains {ARTIFACTS}/, which stages write: put the data into a folder of its own"
        )
    found = _of_path("source", place)
    if found is None:
        raise FileNotFoundError("no folder or archive here")
    return found


def _place(param: str, name: str) -> Path:
    """The path that a param names. Raises InputError when DVC would delete it, as an output of a stage."""
    try:
        place = ROOT / Path(name).expanduser()
    except RuntimeError as error:  # of ~user without such a user
        raise InputError(f"{param}={name}: {error}: mend the path") from error
    if place.resolve().is_relative_to(ARTIFACTS.resolve()):
        raise InputError(f"{param}={name} lies in {ARTIFACTS}/, which DVC deletes and writes: move it elsewhere")
    return place


def encoder_fingerprints(encoders: dict[str, str], recorded: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Of each param its encoder's name and the fingerprint of its folder.

    Without such a folder it is the recorded one of that name, or '': a built-in encoder, or a name on the hub.
    encoders: values of the params text_encoder and image_encoder. Raises InputError when a folder cannot be read, or
    lies among the artifacts.
    """
    found = {}
    for param, name in encoders.items():
        before = recorded.get(param, {})
        known = before["fingerprint"] if before.get("name") == name else ""
        found[param] = {"name": name, "fingerprint": _of_path(param, _place(param, name)) or known}
    return found


def _of_path(param: str, place: Path) -> str | None:
    """The fingerprint of a folder or file, None if it is not there."""
    try:
        return path_fingerprint(place) if place.exists() else None
    except OSError as error:
        raise InputError(f"{param}: {error.filename} cannot be read ({error.strerror}): mend it, run again") from error


if __name__ == "__main__":
    run_stage(main)
