"""Figures in which any text is drawn as text, written with the same bytes each time.

matplotlib is imported when a figure is made: if that fails, a picture is lost, and not the report.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from stages.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 100


@contextmanager
def new_figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """An empty figure, in inches, that is written to `path` after the block: .png, or .jpg if it shows photographs."""
    import matplotlib as mpl
    from matplotlib import font_manager
    from matplotlib.figure import Figure

    for file in fonts().values():
        font_manager.fontManager.addfont(file)
    with mpl.rc_context():
        mpl.rcParams["font.family"] = list(fonts())
        mpl.rcParams["axes.unicode_minus"] = False
        mpl.rcParams["text.parse_math"] = False  # a title may contain `$`
        figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
        yield figure
        with atomic(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:])


@cache
def fonts() -> dict[str, Path]:
    """Font families and their files, in the order in which a character is looked up: Chinese first, then the others."""
    import matplotlib as mpl
    from zhplot.matplotlib import MatplotlibChineseize

    chinese = MatplotlibChineseize()
    candidates = {
        chinese.font_name: Path(chinese.font_ttf_path),
        "DejaVu Sans": Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf",
    }
    for family, file in candidates.items():
        if not file.is_file():
            print(f"warning: {file} is missing: pictures lack the characters of {family}", file=sys.stderr)
    return {family: file for family, file in candidates.items() if file.is_file()}


@cache
def drawable_characters() -> frozenset[int]:
    """Code points that have a glyph in one of the fonts."""
    from matplotlib.ft2font import FT2Font

    return frozenset().union(*(FT2Font(str(file)).get_charmap() for file in fonts().values()))


def drawable(text: str) -> str:
    """The text on one line, without control characters and characters that have no glyph, such as emoji."""
    known = drawable_characters()
    characters = (" " if character.isspace() else character for character in text)
    drawn = (c for c in characters if ord(c) in known and not unicodedata.category(c).startswith("C"))
    return "".join(drawn).strip()
