"""How `tests.fuzz` writes a table: each format as the programs that people use write it."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import polars as pl
import pyarrow as pa

Rows = list[list[object]]
DAY = 86_400


@dataclass
class Style:
    """How a table is written."""

    form: str  # ninerec, csv, json, parquet, movielens, recbole
    names: tuple[str, str, str]
    separator: str
    quote: int
    end: str
    bom: bool
    utf_16: bool
    extra: bool  # more columns, in another order
    packed: str
    blank: bool

    @property
    def encoding(self) -> str:
        return "utf-16" if self.utf_16 else "utf-8"


def write_table(path: Path, rows: Rows, header: list[str], style: Style, fault: str) -> None:
    """Write a table; `path` has no suffix yet, the format gives it."""
    suffix, writer = FORMATS[style.form]
    if style.form == "recbole" and header[-1].startswith("title"):
        suffix = ".item"
    elif style.form in ("csv", "ninerec") and style.separator == "\t":
        suffix = ".tsv"
    _save(path.with_name(path.name + suffix), writer(rows, header, style), style, fault)


def _delimited(rows: Rows, header: list[str], style: Style) -> bytes:
    text = io.StringIO()
    if style.quote == csv.QUOTE_NONE:  # as programs write that never quote
        lines = [*([header] if style.form != "ninerec" else []), *rows]
        return "".join(style.separator.join(map(str, line)) + style.end for line in lines).encode(style.encoding)
    writer = csv.writer(text, delimiter=style.separator, quoting=style.quote, lineterminator=style.end)  # type: ignore[arg-type]
    if style.form != "ninerec":
        writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode(style.encoding)


def _json(rows: Rows, header: list[str], style: Style) -> bytes:
    """Whole numbers as numbers, an empty text as null, as JSON has them."""
    entries = [{name: _as_number(value) for name, value in zip(header, row, strict=False)} for row in rows]
    if style.extra:
        entries = [{"rating": 5.0, "images": [{"x": [1]}], **entry, "helpful": None} for entry in entries]
    return "".join(json.dumps(entry, ensure_ascii=style.blank) + style.end for entry in entries).encode()


def _as_number(value: object) -> object:
    if isinstance(value, str) and value.isascii() and value.isdigit() and str(int(value)) == value:
        return int(value)
    return None if value == "" else value


def _parquet(rows: Rows, header: list[str], style: Style) -> bytes:
    buffer = io.BytesIO()
    columns = {name: [row[n] for row in rows] for n, name in enumerate(header)}
    frame = pl.DataFrame(columns, strict=False)
    if style.extra:  # typed as a database gives it
        whole = [name for name in header[:2] if all(isinstance(_as_number(value), int) for value in columns[name])]
        frame = frame.with_columns(pl.col(whole).cast(pl.Int64)).with_columns(extra=pl.lit(1.5))
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _movielens(rows: Rows, header: list[str], style: Style) -> bytes:
    extra = [5] if len(header) == 3 else []
    lines = ["::".join(map(str, [*row[:2], *extra, *row[2:], *([] if extra else ["A|B"])])) for row in rows]
    return "".join(line + style.end for line in lines).encode("latin-1" if style.extra else "utf-8", "replace")


def _recbole(rows: Rows, header: list[str], style: Style) -> bytes:
    types = {"timestamp": "float", "title": "token_seq"}
    lines = ["\t".join(f"{name}:{types.get(name, 'token')}" for name in header)]
    return "".join(line + style.end for line in [*lines, *("\t".join(map(str, row)) for row in rows)]).encode()


FORMATS: dict[str, tuple[str, Callable[[Rows, list[str], Style], bytes]]] = {
    "ninerec": (".csv", _delimited), "csv": (".csv", _delimited), "json": (".jsonl", _json),
    "parquet": (".parquet", _parquet), "movielens": (".dat", _movielens), "recbole": (".inter", _recbole),
}  # fmt: skip


def _save(path: Path, data: bytes, style: Style, fault: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if style.utf_16:
        path.write_bytes(data)
        return
    if fault == "not UTF-8":
        data = data[: len(data) // 2].rstrip(b"\r\n") + b"\xff" + data[len(data) // 2 :]
    if style.form != "parquet":
        latin_1 = style.form == "movielens" and style.extra
        data = (b"\xef\xbb\xbf" if style.bom and not latin_1 else b"") + data + (style.end * 3).encode() * style.blank
    if style.packed:
        data = gzip.compress(data) if style.packed == "gz" else pa.compress(data, "zstd", asbytes=True)
        path = path.with_name(f"{path.name}.{style.packed}")
    if fault == "cut gzip":
        data = data[: len(data) - 9]
    path.write_bytes(data)


def time_column(rng: Random, times: list[int], style: Style) -> tuple[list[object], list[int]]:
    """Times in one of the ways that people write them → (as written, the whole numbers that they have to become)."""
    kind = rng.choice(("seconds", "seconds", "milliseconds", "float", "half", "iso", "space", "zone", "date"))
    if style.form in ("movielens", "recbole"):
        kind = rng.choice(("seconds", "float"))
    micro = [time * 10**6 for time in times]
    if kind == "seconds":
        return list(times), times
    if kind == "milliseconds":
        return [time * 1000 for time in times], [time * 1000 for time in times]
    if kind == "float":
        return [float(time) for time in times], times
    if kind == "half":
        return [time + 0.5 for time in times], [time + 500_000 for time in micro]
    if kind == "date":
        days = [time // DAY * DAY for time in times]
        return [datetime.fromtimestamp(day, UTC).strftime("%Y-%m-%d") for day in days], [day * 10**6 for day in days]
    form = {"iso": "%Y-%m-%dT%H:%M:%SZ", "space": "%Y-%m-%d %H:%M:%S", "zone": "%Y-%m-%d %H:%M:%S+00:00"}[kind]
    return [datetime.fromtimestamp(time, UTC).strftime(form) for time in times], micro
