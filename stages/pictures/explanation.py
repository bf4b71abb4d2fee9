"""Why items are recommended: the history with its weights above, the items and the parts of their scores below."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from PIL import Image

from stages.pictures.cases import draw_card, label_of
from stages.pictures.figure import new_figure

if TYPE_CHECKING:
    from stages.serving.explaining import Explanation

HEADING = "History, latest last: attention of the last position.\nBelow: recommended, and their scores"
NARROWEST = 3  # columns that HEADING needs
SHOWN = 8  # items of the history, those with the largest weights, and recommended items
STATE = {"id": "ID stream", "content": "content stream", "both": "decoder", "rest": "bias"}
ITEM = {"item_id": "item's ID", "item_content": "item's content"}
COLOURS = {"id": "#4477aa", "content": "#228833", "both": "#66ccee", "rest": "#bbbbbb"}
COLOURS |= {"item_id": COLOURS["id"], "item_content": COLOURS["content"]}


def draw_explanation(
    explanation: Explanation,
    items: pl.DataFrame,
    cover_of: Callable[[str], Image.Image | None],
    title: str,
    path: Path,
) -> None:
    """items: raw_id and column `title`, row i − 1 is item i. cover_of: an item's cover, by raw id."""
    rows = explanation.rows.head(SHOWN)
    numbers = dict(items.select("raw_id", pl.int_range(1, pl.len() + 1).alias("item")).iter_rows())
    places = sorted(np.argsort(explanation.weights)[::-1][:SHOWN])  # oldest first
    history = [(f"{explanation.weights[n]:.0%}", explanation.history[n]) for n in places]
    recommended = [(f"{row['rank']}: {row['score']:.3f}", numbers[row["item"]]) for row in rows.iter_rows(named=True)]
    parts = {name: label for name, label in (STATE | ITEM).items() if rows[name].null_count() == 0}
    columns = max(len(history), len(recommended), NARROWEST)
    with new_figure(path, 1 + 1.6 * columns, 6.5) as figure:
        figure.suptitle(HEADING)
        grid = figure.add_gridspec(3, columns, height_ratios=[1, 1, 0.8])
        for line, cards in enumerate((history, recommended)):
            for column, (head, item) in enumerate(cards):
                axes = figure.add_subplot(grid[line, column])
                draw_card(axes, cover_of(items["raw_id"][item - 1]), label_of(items, item, title))
                axes.set_title(head, fontsize=10)
        values = rows.select(list(parts)).to_numpy()
        edge = 1.1 * max(float(np.abs(values).max(initial=0)), 1e-6)
        for column in range(rows.height):
            axes = figure.add_subplot(grid[2, column])
            axes.barh(list(parts.values()), values[column], color=[COLOURS[name] for name in parts])
            axes.axvline(0, color="#000000", linewidth=0.5)
            axes.set(xlim=(-edge, edge))
            axes.invert_yaxis()
            axes.tick_params(labelsize=8, labelleft=column == 0)
