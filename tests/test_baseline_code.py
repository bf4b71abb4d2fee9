"""An edit of a model changes the hashes of the systems that import it, and of no other."""

import json
import shutil
from pathlib import Path

import pytest

from stages import baseline_code, imports
from stages.models.systems import SYSTEMS


@pytest.fixture
def definitions(tmp_path, monkeypatch):
    """definitions(edited): the files that the stage writes when `edited` has one more line."""

    def make(edited: str | None) -> dict[str, dict[str, object]]:
        root = tmp_path / (edited or "unchanged").replace("/", "_")
        shutil.copytree(imports.ROOT / "stages", root / "stages")
        if edited:
            with (root / "stages" / edited).open("a") as file:
                file.write("\n# one more line\n")
        for module in (imports, baseline_code):
            monkeypatch.setattr(module, "ROOT", root)
        imports.direct_imports.cache_clear()
        monkeypatch.chdir(root)
        baseline_code.main()
        monkeypatch.undo()
        return {path.stem: json.loads(path.read_text()) for path in (root / baseline_code.FOLDER).iterdir()}

    return make


@pytest.mark.parametrize(
    ("edited", "changed"),
    [
        ("models/baselines/missrec.py", {name for name in SYSTEMS if name.startswith("missrec")}),
        ("models/baselines/popularity.py", {"pop"}),
        ("models/baselines/cosine.py", {"unisrec_t", "unisrec_t_id", "vqrec"}),
        ("models/layers.py", set(SYSTEMS) - {"pop", "itemknn"}),
        ("models/sicsrec.py", set()),
        ("params.py", set()),
    ],
)
def test_only_systems_that_import_the_edited_file_change(definitions, edited, changed):
    before, after = definitions(None), definitions(edited)
    assert before.keys() == after.keys() == SYSTEMS.keys()
    assert {name for name in SYSTEMS if before[name] != after[name]} == changed
    assert Path(imports.ROOT, "stages", edited).is_file()
