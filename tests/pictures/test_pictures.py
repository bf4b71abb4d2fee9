import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from zhplot.matplotlib import MatplotlibChineseize

from stages.encoders.covers import CoverArchive
from stages.pictures import figure
from stages.pictures.alignment import draw_alignment
from stages.pictures.cases import draw_cases, wrap
from stages.pictures.figure import drawable

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
    assert drawable("红烧肉 🍜") == "红烧肉"


def test_titles_are_truncated_to_three_lines():
    assert wrap("红烧肉") == "红烧肉"
    long = wrap("红烧肉的做法" * 10).split("\n")
    assert [len(line) for line in long] == [9, 9, 9]
    assert long[-1].endswith("…")
    assert max(map(len, wrap("a long English title of many words " * 5).split("\n"))) <= 18


def test_no_line_of_a_title_begins_with_a_punctuation_mark():
    assert wrap("年度合集的密室案件，悬疑") == "年度合集的密室案件，\n悬疑"
    assert wrap("年度合集的密室案件！") == "年度合集的密室案件！"


ODD_TITLES = {
    "two dollars": "$$ · place 1, $5",
    "one dollar": "a $ b",
    "mathematics": r"$\frac{1}{$ x_1^2 \alpha { } % # & ~",
    "emoji": "🍜🥟🔥👩‍🍳",
    "control characters": "a\0b\x1b[31m\x07c",
    "lines": "first\nsecond\r\nthird\tfourth",
    "long": "noodles " * 1250,
    "one long word": "x" * 10_000,
    "many combining marks": "a" + "\u0301" * 5000,
    "right to left": "مرحبا بالعالم שלום עולם",
    "direction overrides": "\u202eabc\u202c \u2066def\u2069",
    "unpaired surrogate": "a\ud800b",
    "private use": "\ue000\uf8ff",
    "blank": " \u3000\u200b ",
    "empty": "",
    "none": None,
}


@pytest.mark.parametrize("title", ODD_TITLES.values(), ids=ODD_TITLES.keys())
def test_any_title_and_raw_id_can_be_drawn_without_a_warning(tmp_path, title, recwarn, caplog):
    items = pl.DataFrame(
        {
            "raw_id": ["$v_1$", "v2", "🍜", "v4"],
            "title": pl.Series(
                [None if title is None else title.encode("utf-8", "replace").decode()] * 4, dtype=pl.String
            ),
        }
    )
    draw_cases(CASES, items, CoverArchive(tmp_path / "none.zip"), "title", tmp_path / "cases.png")
    with Image.open(tmp_path / "cases.png") as picture:
        assert picture.width < 2500
        assert picture.height < 500
    assert not recwarn.list
    assert not caplog.records


def test_a_dollar_is_drawn_and_not_read_as_mathematics(tmp_path):
    for name, title in {"plain": "aa", "dollars": "$a$"}.items():
        items = ITEMS.with_columns(title=pl.lit(title))
        draw_cases(CASES, items, CoverArchive(tmp_path / "none.zip"), "title", tmp_path / f"{name}.png")
    assert dark_pixels(tmp_path / "dollars.png") > dark_pixels(tmp_path / "plain.png")


def dark_pixels(path: Path) -> int:
    with Image.open(path) as picture:
        return int((np.asarray(picture.convert("L")) < 128).sum())


def test_text_of_a_title_is_on_one_line_before_it_is_wrapped():
    assert drawable("a\nb\tc") == "a b c"
    assert drawable("a\0\x1b\u202eb") == "ab"
    assert drawable("مرحبا") == "مرحبا"


def test_an_item_without_a_drawable_title_shows_its_id(tmp_path):
    for name, title in {"empty": "", "emoji": "🍜", "id": "v1"}.items():
        items = pl.DataFrame({"raw_id": ["v1"] * 4, "title": [title] * 4})
        draw_cases(CASES, items, CoverArchive(tmp_path / "none.zip"), "title", tmp_path / f"{name}.png")
    expected = (tmp_path / "id.png").read_bytes()
    assert (tmp_path / "empty.png").read_bytes() == expected
    assert (tmp_path / "emoji.png").read_bytes() == expected


def test_without_the_chinese_font_the_picture_is_drawn_and_one_line_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(MatplotlibChineseize, "font_ttf", "missing.ttf")
    monkeypatch.setattr(MatplotlibChineseize.__init__, "__defaults__", ("Noto Sans SC", "missing.ttf"))
    for cached in (figure.fonts, figure.drawable_characters):
        cached.cache_clear()
    try:
        draw_cases(CASES, ITEMS, CoverArchive(tmp_path / "none.zip"), "title", tmp_path / "cases.png")
        assert drawable("红烧肉 Tea") == "Tea"
    finally:
        for cached in (figure.fonts, figure.drawable_characters):
            cached.cache_clear()
    (line,) = capsys.readouterr().err.splitlines()
    assert "missing.ttf is missing" in line
