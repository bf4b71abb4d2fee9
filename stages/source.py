"""Stage `source`: a fingerprint of the files of `source`. It runs in every `dvc repro` and reads no content."""

import json
import os
from pathlib import Path

from stages.data.fingerprint import path_fingerprint, url_fingerprint
from stages.errors import InputError, run_stage
from stages.params import load_params
from stages.shallow_clone import refuse_experiment_in_shallow_clone

OUTPUT = Path("metrics/source.json")
ROOT = Path(os.environ.get("DVC_ROOT", "."))  # as stages.files.project_root, without the imports of stages.files


def main() -> str:
    """Write metrics/source.json, on which `download` depends: it changes when the files of `source` do.

    A source that cannot be reached (a fresh clone, no network) counts as unchanged since the last time.
    """
    refuse_experiment_in_shallow_clone()  # here, because this is the one stage that every experiment runs
    params = load_params()
    source = "" if params.dataset == "sample" else params.source
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


def fingerprint(source: str) -> str:
    """The fingerprint of a source; '' for the built-in sample and NineRec's official archive, which never change."""
    if not source:
        return ""
    if source.startswith(("https://", "http://")):
        return url_fingerprint(source)
    place = ROOT / Path(source).expanduser()
    if not place.exists():
        raise FileNotFoundError("no folder or archive here")
    return path_fingerprint(place)


if __name__ == "__main__":
    run_stage(main)
