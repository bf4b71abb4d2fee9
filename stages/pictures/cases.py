"""Fig. 5: histories at the left, the items that each model recommends at the right, the true item framed."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from PIL import Image

from stages.encoders.covers import CoverArchive
from stages.pictures.figure import drawable, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HISTORY = 4  # latest items shown
FRAME = "#000000"
CARD = "#e8e8e8"
CHARACTERS, LINES = 9, 3  # of a title
CUT = 1000  # characters of a title that are looked at
PUNCTUATION = "，。！？；：、”’）》」』!?,.;:"
NAMES = {"sicsrec": "SICSRec", "id_encoder": "ID encoder"}


def wrap(title: str) -> str:
    """At most LINES short lines, none starting with punctuation; a Chinese character is as wide as two Latin ones."""
    text = drawable(title[:CUT])
    wide = sum(ord(character) > 0x2E80 for character in text) > len(text) / 3
    width = CHARACTERS if wide else 2 * CHARACTERS
    lines = re.sub(rf"\n([{PUNCTUATION}])\n?", r"\1\n", textwrap.fill(text, width)).rstrip().split("\n")
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], lines[LINES - 1][: width - 1] + "…"]
    return "\n".join(lines)


def label_of(items: pl.DataFrame, item: int, title: str) -> str:
    """What stands on an item's card: its title, or its id. items: see `draw_cases`."""
    raw_id, words = items["raw_id"][item - 1], items[title][item - 1]
    return wrap(words or "") or wrap(raw_id) or f"item {item}"


def draw_cases(cases: pl.DataFrame, items: pl.DataFrame, covers: CoverArchive, title: str, path: Path) -> None:
    """cases: history, target, and one list column per model; items: raw_id and column `title`, row i − 1 is item i."""
    models = [name for name in cases.columns if name not in ("user", "history", "target")]
    shown = max((len(row[name]) for row in cases.iter_rows(named=True) for name in models), default=0)
    widths = [1.0] * HISTORY + ([0.25] + [1.0] * shown) * len(models)  # a gap before each model
    with new_figure(path, 1.5 * sum(widths), 0.6 + 2.0 * max(len(cases), 1)) as figure:
        grid = figure.add_gridspec(max(len(cases), 1), len(widths), width_ratios=widths)
        figure.suptitle("The true next item is framed" if len(cases) else "No history tells the models apart")
        for line, case in enumerate(cases.iter_rows(named=True)):
            groups = {"history, latest last": (0, case["history"][-HISTORY:])}
            groups |= {name: (HISTORY + 1 + number * (shown + 1), case[name]) for number, name in enumerate(models)}
            for head, (first, chosen) in groups.items():
                for offset, item in enumerate(chosen):
                    axes = figure.add_subplot(grid[line, first + offset])
                    raw_id = items["raw_id"][item - 1]
                    draw_card(axes, covers.get(raw_id), label_of(items, item, title), item == case["target"])
                    if offset == 0:
                        axes.set_title(NAMES.get(head, head), fontsize=10, loc="left")


def draw_card(axes: Axes, cover: Image.Image | None, label: str, is_target: bool = False) -> None:
    """An item: its cover above its label, or its label alone."""
    axes.set(xticks=[], yticks=[])
    axes.set_facecolor(CARD)
    axes.set_box_aspect(0.75)
    if cover is None:
        axes.text(0.5, 0.5, label, ha="center", va="center", fontsize=9, transform=axes.transAxes)
    else:
        axes.imshow(cover, aspect="auto")
        axes.set_xlabel(label, fontsize=9)
    for spine in axes.spines.values():
        spine.set(color=FRAME if is_target else "none", linewidth=4)
