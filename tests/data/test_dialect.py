"""How text files are written: whether quotes enclose fields or are part of the text."""

from pathlib import Path

import pytest

from stages.data.dialect import is_quoted


def quoted(folder: Path, text: str, separator: str) -> bool:
    """Whether quotes enclose fields in a file; in `text`, `;` separates."""
    (folder / "rows").write_text(text.replace(";", separator))
    return is_quoted(folder / "rows", "rows", separator, "utf-8")


@pytest.mark.parametrize(("text", "expected"), [
    ('v1;"Heroes\nv2;tea\nv3;Blue Monday 12"\nv4;pot\n', False),
    ('v1;"Heroes\n\nv3;Blue Monday 12"', False),
    ('v1;"tea"\nv2;"a ""big"" pot"\n\nv3;hat\n', True),
    ('v1;"two\nlines"\nv2;tea\n', True),  # `lines"` is no row by itself
    ('v1;12" vinyl\nv2;tea\n', False),
])  # fmt: skip
@pytest.mark.parametrize("separator", ["\t", "|"])
def test_quotes_that_join_whole_rows_are_text(tmp_path: Path, text: str, expected: bool, separator: str) -> None:
    assert quoted(tmp_path, text, separator) is expected


def test_quotes_enclose_what_commas_separate(tmp_path: Path) -> None:
    assert quoted(tmp_path, 'v1;"a\nb;c"\nv2;tea\n', ",")
