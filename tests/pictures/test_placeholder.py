import warnings
from pathlib import Path

import pytest
from PIL import Image

from stages.pictures.placeholder import draw_or_placeholder


def fail(error: Exception):
    def draw(path: Path) -> None:
        raise error

    return draw


@pytest.mark.parametrize("name", ["picture.png", "picture.jpg"])
@pytest.mark.parametrize(
    "error", [ValueError("no font\nfor 汉字"), MemoryError(), ImportError("matplotlib"), OSError(30, "read-only")]
)
def test_a_picture_that_fails_is_one_line_and_a_placeholder(tmp_path, capsys, name, error):
    draw_or_placeholder(tmp_path / name, fail(error))
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line
    assert type(error).__name__ in line
    with Image.open(tmp_path / name) as image:
        image.verify()


def test_a_placeholder_replaces_an_earlier_picture(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"earlier")
    draw_or_placeholder(path, fail(ValueError("x")))
    assert path.read_bytes().startswith(b"\x89PNG")


def test_many_warnings_are_one_line(tmp_path, capsys):
    def draw(path: Path) -> None:
        for number in range(500):
            warnings.warn(f"glyph {number} is missing", UserWarning, stacklevel=1)

    draw_or_placeholder(tmp_path / "picture.png", draw)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_drawing_without_warnings_prints_nothing(tmp_path, capsys):
    draw_or_placeholder(tmp_path / "picture.png", lambda path: path.write_bytes(b"drawn"))
    assert capsys.readouterr().err == ""
    assert (tmp_path / "picture.png").read_bytes() == b"drawn"
