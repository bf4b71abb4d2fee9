"""Stage `source`: a fingerprint of the files of `source`. It runs in every `dvc repro` and reads no content."""

import json
import os
from pathlib import Path

from stages.data.fingerprint import path_fingerprint, url_fingerprint
from stages.errors import InputError, run_stage
from stages.params import load_params
from stages.shallow_clone import refuse_experiment_in_shallow_clone

NINEREC = (
    "Bili_2M", "Bili_Food", "Bili_Dance", "Bili_Cartoon", "Bili_Movie", "Bili_Music", "KU", "QB", "TN", "DY",
)  # fmt: skip
OUTPUT = Path("metrics/source.json")
ROOT = Path(os.environ.get("DVC_ROOT", "."))  # as stages.files.project_root, without the imports of stages.files


def main() -> str:
    """Write metrics/source.json, on which `download` depends: it changes when the files of `source` do.

    A source that cannot be reached (a fresh clone, no network) counts as unchanged since the last time.
    """
    refuse_experiment_in_shallow_clone()  # here, because this is the one stage that every experiment runs
    params = load_params()
    refuse_what_does_not_go_together(params.dataset, params.source)
    source = params.source
    recorded = json.loads(OUTPUT.read_text(encoding="utf-8")) if OUTPUT.is_file() else {}
    try:
        found = fingerprint(source)
    except OSError as error:
        if recorded.get("source") != source:
            raise InputError(f"source: {source} cannot be read ({error}): mend the path or the address") from error
        return f"{source} cannot be reached ({error}): taken as unchanged"
    content = {"source": source, "fingerprint": found}
    if content == recorded:
        return f"{params.dataset}: unchanged"
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return f"{params.dataset}: new, or changed since the last run"


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

    Raises OSError when it cannot be reached; InputError when it is here but unreadable, or its address is malformed.
    """
    if not source:
        return ""
    if source.startswith(("https://", "http://")):
        return url_fingerprint(source)
    place = ROOT / Path(source).expanduser()
    try:
        if place.exists():
            return path_fingerprint(place)
    except OSError as error:
        raise InputError(f"source: {error.filename} cannot be read ({error.strerror}): mend it, run again") from error
    raise FileNotFoundError("no folder or archive here")


if __name__ == "__main__":
    run_stage(main)
