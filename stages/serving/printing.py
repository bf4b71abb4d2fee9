"""Rows printed for a person or a program."""

import json
import os
import sys

import polars as pl


def show(frame: pl.DataFrame, as_json: bool, header: bool = False) -> None:
    """Print the rows as JSON or as tab-separated text, as far as they are read (`| head`)."""
    try:
        _print(frame, as_json, header)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python flushes once more and complains


def _print(frame: pl.DataFrame, as_json: bool, header: bool) -> None:
    if as_json:
        print(json.dumps(frame.to_dicts(), ensure_ascii=False, indent=2))
        return
    if header:
        print("\t".join(frame.columns))
    for row in frame.iter_rows():
        print("\t".join(map(as_text, row)))


def as_text(value: object) -> str:
    """A cell; empty if there is nothing."""
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:.4f}" if isinstance(value, float) else str(value)
