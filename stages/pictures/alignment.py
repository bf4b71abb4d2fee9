"""Titles and covers before and after fine-tuning: their first two principal components, and the modality gap."""

from pathlib import Path

import polars as pl

from stages.pictures.figure import new_figure

COLOURS = {"text": "#1f77b4", "image": "#ff7f0e"}


def draw_alignment(points: pl.DataFrame, gaps: dict[str, float], path: Path) -> None:
    """points: columns when, modality, x, y, as `projected` returns them; gaps: {when: modality gap}."""
    moments = points["when"].unique(maintain_order=True).to_list()
    with new_figure(path, 6 * max(1, len(moments)), 6) as figure:
        figure.suptitle("Titles and covers in the space that fine-tuning aligns" if moments else "No content to align")
        for column, when in enumerate(moments, start=1):
            axes = figure.add_subplot(1, len(moments), column)
            for modality, colour in COLOURS.items():
                part = points.filter((pl.col("when") == when) & (pl.col("modality") == modality))
                if len(part):
                    axes.scatter(part["x"], part["y"], s=8, alpha=0.6, color=colour, label=modality, linewidths=0)
            axes.set(title=f"{when} fine-tuning", ylabel="second principal component")
            gap = f"\nmodality gap {gaps[when]:.3f}" if when in gaps else ""
            axes.set_xlabel(f"first principal component{gap}")
        if moments:
            legend = figure.axes[0].get_legend_handles_labels()
            figure.legend(*legend, loc="outside upper right", ncols=2, markerscale=2)
