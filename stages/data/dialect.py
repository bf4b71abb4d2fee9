"""How a text file is written: compression, encoding, separator and quotes."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path, PurePosixPath

import pyarrow as pa

from stages.data.columns import LAYOUTS
from stages.errors import InputError

SUFFIXES = {".csv", ".tsv", ".txt", ".dat", ".data", ".inter", ".item", ".json", ".jsonl", ".ndjson", ".parquet", ".pq"}
COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # by their first bytes
PACKED_SUFFIXES = {".gz", ".zst", ".zstd"}
MANY = "::"  # the one separator of two characters
SEPARATORS = {".tsv": "\t", ".inter": "\t", ".item": "\t", ".dat": MANY}  # tried first; others: comma
NOT_LATIN = re.compile(rb"[\x80-\xff]{4}")  # words have no four letters with accents in a row; GBK and others do
BLOCK = 1 << 24  # bytes of text in memory at a time, and the longest row
csv.field_size_limit(BLOCK)


def table_suffix(path: PurePosixPath) -> str:
    """The suffix of a table, not counting `.gz` or `.zst`; '' when the suffix is not that of a table."""
    suffix = PurePosixPath(unpacked_name(path)).suffix
    return suffix if suffix in SUFFIXES else ""


def unpacked_name(path: PurePosixPath) -> str:
    """The name of a file without `.gz` or `.zst`, in small letters."""
    name = path.name.lower()
    return PurePosixPath(name).stem if PurePosixPath(name).suffix in PACKED_SUFFIXES else name


def find_dialect(lines: list[str], suffix: str, name: str) -> tuple[str, bool, list[list[str]]]:
    """Separator, whether fields may be quoted, and the rows of a sample of lines.

    The separator is the first that splits every line into the same number of fields, at least two.
    """
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise InputError(f"{name} is empty: get it anew")
    if lines[0].lower().startswith("sep="):
        raise InputError(f"{name}: its first line is Excel's `{lines[0].strip()}`: remove that line")
    first = SEPARATORS.get(suffix, ",")
    for separator in dict.fromkeys((first, "\t", MANY, "|", ";", ",")):
        for quoted in (True,) if separator in ",;" else (True, False):
            rows = _fields(lines, separator, quoted)
            if rows and len(rows[0]) > 1 and len({len(row) for row in rows}) == 1:
                return separator, quoted, rows
    rows = _fields(lines, first, True) or _fields(lines, first, False)
    if not rows:
        raise InputError(f"{name} cannot be split into lines (line ends \\r alone?): save it with \\n as line ends")
    return first, True, rows  # one column, or rows of different widths: reading the file then names the row


def _fields(lines: list[str], separator: str, quoted: bool) -> list[list[str]]:
    if separator == MANY:
        split = not quoted and not any("\r" in line.rstrip("\r\n") for line in lines)
        return [line.rstrip("\r\n").split(MANY) for line in lines] if split else []
    rows = []
    try:
        for row in csv.reader(
            iter(lines), delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
        ):
            rows.append(row)
    except csv.Error:  # a stray quote; or the sample ends within a quoted field, which is right
        return rows if len(rows) > len(lines) // 2 else []
    return rows


def is_quoted(file: Path, name: str, separator: str, encoding: str) -> bool:
    """Whether quotes enclose fields, or are part of the text.

    Raises InputError when fields begin with quotes that do not enclose them, unless tabs separate the fields: there
    most programs do not quote at all. Where tabs or bars separate, quotes that join lines of which each is a row by
    itself are text: `"Heroes` on one line and `Blue Monday 12"` on a later one.
    """
    if not _has_quoted_field(file, separator, encoding):
        return False
    row, widths = 0, Counter[int]()
    with open_as_utf8(file, encoding) as stream, io.TextIOWrapper(stream, "utf-8", "replace", newline="") as text:
        lines = _counted(text, separator, widths)
        try:
            for cells in csv.reader(lines, delimiter=separator, strict=True):
                row += bool(cells)
        except csv.Error as error:
            if separator == "\t":
                return False
            raise InputError(f"{name}, row {row + 1}: {error}: double the quotes inside a quoted field") from error
    joins_rows = row < widths.total() and len(widths) == 1
    return not (joins_rows and separator in "\t|")


def _counted(lines: Iterable[str], separator: str, widths: Counter[int]) -> Iterator[str]:
    """The lines, while `widths` counts those that have each number of separators. Blank lines are not counted."""
    for line in lines:
        if line.strip("\r\n"):
            widths[line.count(separator)] += 1
        yield line


def _has_quoted_field(file: Path, separator: str, encoding: str) -> bool:
    """Whether any field of the file begins with a quote. If none does, quotes are part of the text."""
    if separator == MANY:
        return False
    start = re.compile(rb"(^|[\n\r" + re.escape(separator.encode()) + rb'])[ ]*"')
    tail = b"\n"
    with open_as_utf8(file, encoding) as stream:
        while block := stream.read(BLOCK):
            if start.search(tail + block):
                return True
            tail = block[-1:]
    return False


def find_encoding(file: Path, path: PurePosixPath, sample: bytes) -> str:
    """UTF-16 if the sample has its byte order mark; Latin-1 for MovieLens' files that are not UTF-8; else UTF-8.

    Raises InputError if the file is not UTF-16, or not Latin-1, to its end.
    """
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        if not _is_encoded(file, "utf-16"):
            raise InputError(f"{path} is damaged UTF-16: get it anew, or save it as UTF-8")
        return "utf-16"
    if unpacked_name(path) in LAYOUTS and not _is_encoded(file, "utf-8"):
        if any(NOT_LATIN.search(block) for block in _blocks(file)):
            raise InputError(f"{path} is neither UTF-8 nor Latin-1: save it as UTF-8")
        return "latin-1"
    return "utf-8"


def _is_encoded(file: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for block in chain(_blocks(file), [b""]):
            decoder.decode(block, final=not block)
    except UnicodeDecodeError:
        return False
    return True


def _blocks(file: Path) -> Iterator[bytes]:
    with open_unpacked(file) as stream:
        yield from iter(lambda: stream.read(BLOCK), b"")


def open_unpacked(file: Path) -> pa.NativeFile:
    """A file's bytes, decompressed. Reading raises OSError when the compressed data is damaged."""
    with file.open("rb") as reader:
        start = reader.read(4)
    codec = next((codec for magic, codec in COMPRESSED.items() if start.startswith(magic)), None)
    return pa.input_stream(str(file), compression=codec)


def open_as_utf8(file: Path, encoding: str) -> pa.NativeFile:
    """The decompressed bytes of a text file in UTF-8."""
    stream = open_unpacked(file)
    return stream if encoding == "utf-8" else pa.transcoding_input_stream(stream, encoding, "utf-8")
