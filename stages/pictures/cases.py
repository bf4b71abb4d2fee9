"""Fig. 5: histories at the left, what each model recommends after them at the right, the true item framed."""

import re
import textwrap
import zipfile
from io import BytesIO
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from PIL import Image, UnidentifiedImageError

from stages.pictures.figure import new_figure, save, writable

HISTORY = 4  # latest items shown
FRAME = "#000000"
CARD = "#e8e8e8"
CHARACTERS, LINES = 9, 3  # of a title
STOPS = "，。！？；：、”’）》」』!?,.;:"
NAMES = {"sicsrec": "SICSRec", "id_encoder": "ID encoder"}


class CoverArchive:
    """Covers of a dataset by raw id; an item without a readable one has none."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self.names = set(zipfile.ZipFile(archive).namelist()) if archive.is_file() else set()

    def get(self, raw_id: str) -> Image.Image | None:
        """The cover, or None."""
        if f"{raw_id}.jpg" not in self.names:
            return None
        with zipfile.ZipFile(self.archive) as file:
            try:
                return Image.open(BytesIO(file.read(f"{raw_id}.jpg"))).convert("RGB")
            except (UnidentifiedImageError, OSError):
                return None


def wrapped(title: str) -> str:
    """At most LINES short lines, none begun by a stop; a Chinese character is as wide as two Latin ones."""
    wide = sum(ord(character) > 0x2E80 for character in title) > len(title) / 3
    width = CHARACTERS if wide else 2 * CHARACTERS
    lines = re.sub(rf"\n([{STOPS}])\n?", r"\1\n", textwrap.fill(writable(title), width)).rstrip().split("\n")
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], lines[LINES - 1][: width - 1] + "…"]
    return "\n".join(lines)


def draw_cases(cases: pl.DataFrame, items: pl.DataFrame, covers: CoverArchive, title: str, path: Path) -> None:
    """cases: history, target, and a list column a model; items: raw_id and the `title` column, row i − 1 is item i."""
    models = [name for name in cases.columns if name not in ("user", "history", "target")]
    shown = max((len(row[name]) for row in cases.iter_rows(named=True) for name in models), default=0)
    widths = [1.0] * HISTORY + ([0.25] + [1.0] * shown) * len(models)  # a gap before each model's
    figure = new_figure(1.5 * sum(widths), 0.6 + 2.0 * max(len(cases), 1))
    grid = figure.add_gridspec(max(len(cases), 1), len(widths), width_ratios=widths)
    figure.suptitle("The true next item is framed" if len(cases) else "No history tells the models apart")
    for line, case in enumerate(cases.iter_rows(named=True)):
        groups = {"history, latest last": (0, case["history"][-HISTORY:])}
        groups |= {name: (HISTORY + 1 + number * (shown + 1), case[name]) for number, name in enumerate(models)}
        for head, (first, chosen) in groups.items():
            for offset, item in enumerate(chosen):
                axes = figure.add_subplot(grid[line, first + offset])
                raw_id, words = items["raw_id"][item - 1], items[title][item - 1]
                _card(axes, covers.get(raw_id), words or raw_id, item == case["target"])
                if offset == 0:
                    axes.set_title(NAMES.get(head, head), fontsize=10, loc="left")
    save(figure, path)


def _card(axes: Axes, cover: Image.Image | None, words: str, true: bool) -> None:
    axes.set(xticks=[], yticks=[])
    axes.set_facecolor(CARD)
    axes.set_box_aspect(0.75)
    if cover is None:
        axes.text(0.5, 0.5, wrapped(words), ha="center", va="center", fontsize=9, transform=axes.transAxes)
    else:
        axes.imshow(cover, aspect="auto")
        axes.set_xlabel(wrapped(words), fontsize=9)
    for spine in axes.spines.values():
        spine.set(color=FRAME if true else "none", linewidth=4)
