"""What `python -m tests.readme` finds in a page and does with it."""

import pytest

from tests.clone import ROOT
from tests.readme import commands_of, prepared, reason_to_skip, sections

SECTION = """Text with `dvc exp apply NAME`, and `a word`, and `python` alone.

    pip install -r requirements.txt && dvc repro        # both
    dvc exp run -S a=1

```bash
pytest -k "#1"
```

```mermaid
dvc not a command
```

    dvc exp run -S a=1
"""


def test_commands_are_found_in_indented_and_shell_blocks_and_in_the_text_each_once():
    assert commands_of(SECTION) == [
        "dvc exp apply NAME", "pip install -r requirements.txt", "dvc repro", "dvc exp run -S a=1", 'pytest -k "#1"',
    ]  # fmt: skip


def test_the_readme_has_commands_that_are_run_and_commands_that_are_skipped_in_its_sections():
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = {title: commands_of(text) for title, text in sections(page)}
    assert reason_to_skip(commands["Quick start"][0]) == ".ci/run does it"
    assert "dvc exp run -S alpha=0.3" in commands["Change something"]
    assert all(map(reason_to_skip, commands["The paper's run"]))
    assert not any(map(reason_to_skip, commands["Use the model"]))


def test_placeholders_get_their_values_and_runs_their_small_params():
    assert prepared("dvc exp branch NAME BRANCH", {"NAME": "a", "BRANCH": "b"}) == "dvc exp branch a b"
    line = prepared("dvc exp run -S dataset=MyShop -S source=FOLDER", {"FOLDER": "/x"})
    assert line.startswith("dvc exp run -S dataset=MyShop -S source=/x -S 'dim=32' ")


def test_a_placeholder_without_a_value_ends_the_run():
    with pytest.raises(SystemExit, match="no value for SOMETHING"):
        prepared("python -m stages.recommend --titles SOMETHING", {"NAME": "a"})
