"""What the pictures have in common: a font with Chinese in it, and files of the same bytes each time."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from zhplot.matplotlib import MatplotlibChineseize

from stages.files import atomic

FONT = MatplotlibChineseize()  # Noto Sans SC, from the package
DOTS_AN_INCH = 100


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that writes Chinese."""
    font_manager.fontManager.addfont(FONT.font_ttf_path)
    mpl.rcParams["font.family"] = FONT.font_name
    mpl.rcParams["axes.unicode_minus"] = False
    return Figure(figsize=(width, height), dpi=DOTS_AN_INCH, layout="constrained")


def writable(text: str) -> str:
    """The text without the characters that the font lacks, such as emoji."""
    known = FT2Font(str(FONT.font_ttf_path)).get_charmap()
    return "".join(character for character in text if ord(character) in known).strip()


def save(figure: Figure, path: Path) -> None:
    """Write a .png, or a .jpg for what has photographs in it."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:])
