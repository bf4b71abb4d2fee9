import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from stages.pictures.alignment import draw_alignment
from stages.pictures.cases import CoverArchive, draw_cases, wrapped
from stages.pictures.figure import writable

ITEMS = pl.DataFrame({"raw_id": ["v1", "v2", "v3", "v4"], "title": ["红烧肉的做法", "Noodles", "", "Tea"]})
CASES = pl.DataFrame({"user": [7], "history": [[1, 2]], "target": [3], "sicsrec": [[3, 4]], "id_encoder": [[4, 1]]})


@pytest.fixture
def covers(tmp_path: Path) -> CoverArchive:
    red = BytesIO()
    Image.new("RGB", (20, 10), "red").save(red, "JPEG")
    with zipfile.ZipFile(tmp_path / "cover.zip", "w") as file:
        file.writestr("v1.jpg", red.getvalue())
        file.writestr("v2.jpg", b"not a picture")
    return CoverArchive(tmp_path / "cover.zip")


def pixels(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=2**24)
    return {colour for _, colour in colours}


def black_columns(path: Path) -> list[int]:
    """Columns of pixels that contain a vertical side of a frame."""
    with Image.open(path) as picture:
        dark = np.asarray(picture.convert("L")) < 8
    return np.flatnonzero(dark.sum(axis=0) > 60).tolist()


def test_a_readable_cover_is_returned(covers, tmp_path):
    assert covers.get("v1").size == (20, 10)
    assert covers.get("v2") is None
    assert covers.get("v3") is None
    assert CoverArchive(tmp_path / "none.zip").get("v1") is None


def test_the_picture_shows_covers_and_frames_the_true_item(covers, tmp_path):
    draw_cases(CASES, ITEMS, covers, "title", tmp_path / "cases.png")
    shown = pixels(tmp_path / "cases.png")
    assert any(red > 240 and green < 20 and blue < 20 for red, green, blue in shown), "the cover"
    framed = black_columns(tmp_path / "cases.png")
    draw_cases(CASES.with_columns(target=4), ITEMS, covers, "title", tmp_path / "other.png")
    assert len(framed) > 1
    assert framed != black_columns(tmp_path / "other.png"), "another item is framed"


def test_without_cases_or_content_there_is_still_a_picture(covers, tmp_path):
    draw_cases(CASES.clear(), ITEMS, covers, "title", tmp_path / "cases.png")
    draw_alignment(pl.DataFrame(schema={"when": pl.String}), {}, tmp_path / "alignment.png")
    for name in ("cases", "alignment"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 100


def test_the_same_points_give_the_same_bytes(tmp_path):
    points = pl.DataFrame(
        {"when": ["before", "after"] * 2, "modality": ["text", "text", "image", "image"], "x": 1.0, "y": 2.0}
    )
    for name in ("one", "two"):
        draw_alignment(points, {"before": 0.5, "after": 0.1}, tmp_path / f"{name}.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_characters_without_a_glyph_are_removed_and_chinese_remains():
    assert writable("红烧肉 🍜") == "红烧肉"


def test_titles_are_truncated_to_three_lines():
    assert wrapped("红烧肉") == "红烧肉"
    long = wrapped("红烧肉的做法" * 10).split("\n")
    assert [len(line) for line in long] == [9, 9, 9]
    assert long[-1].endswith("…")
    assert max(map(len, wrapped("a long English title of many words " * 5).split("\n"))) <= 18


def test_no_line_of_a_title_begins_with_a_punctuation_mark():
    assert wrapped("年度合集的密室案件，悬疑") == "年度合集的密室案件，\n悬疑"
    assert wrapped("年度合集的密室案件！") == "年度合集的密室案件！"
