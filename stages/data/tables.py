"""Read delimited text, JSON Lines or Parquet, plain or compressed by gzip or zstd, as a lazy frame."""

import codecs
import glob
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pydantic_core import from_json

from stages.data.columns import LAYOUTS, RECBOLE_TYPE, Wanted, is_header
from stages.data.dialect import (
    BLOCK,
    MANY,
    find_dialect,
    find_encoding,
    is_quoted,
    open_as_utf8,
    open_unpacked,
    table_suffix,
    unpacked_name,
)
from stages.errors import InputError

SAMPLE = 1 << 16  # bytes that are read to find separator, quotes and header


@dataclass(frozen=True)
class Table:
    """A file and its format.

    file: on this disk; name: its path in the source, for messages; columns: names, or '1', '2', … without a header;
    first_row: the first row of a text file, header or not; blank_lines: before that row; nested: the first line of JSON
    where a column's value is a list or an object.
    """

    file: Path
    name: str
    columns: tuple[str, ...]
    kind: str  # text, json or parquet
    header: bool = True
    first_row: tuple[str, ...] = ()
    separator: str = ","
    quoted: bool = True
    encoding: str = "utf-8"
    blank_lines: int = 0
    nested: dict[str, int] = field(default_factory=dict)

    def scan(self, columns: dict[str, str], spool: Path) -> pl.LazyFrame:
        """Some columns as a lazy frame of text (Parquet: text, numbers or times), with `row`, counted from 1.

        columns: {name in the frame: name in the file}; spool: a file to write to. Blank lines are not counted.
        Raises InputError with the row at fault.
        """
        names = list(dict.fromkeys(columns.values()))
        if self.kind == "parquet":
            rows = _scan_parquet(self.file).select(names)
            self._refuse_damaged(rows)
        elif self.kind == "json":
            rows = self._scan_json(names, spool)
        else:
            self._text_to_parquet(names, spool)
            rows = _scan_parquet(spool)
        return rows.select(pl.col(old).alias(new) for new, old in columns.items()).with_row_index("row", offset=1)

    def _refuse_damaged(self, rows: pl.LazyFrame) -> None:
        try:
            rows.select(pl.all().count()).collect(engine="streaming")
        except pl.exceptions.ComputeError as error:
            raise InputError(f"{self.name} is a damaged Parquet file ({_one_line(error):.80}): get it anew") from error

    def _scan_json(self, names: list[str], spool: Path) -> pl.LazyFrame:
        for key in names:
            if line := self.nested.get(key):
                raise InputError(f"{self.name}, line {line}: {key} is a list or an object: make it text or a number")
        with open_unpacked(self.file) as reader, spool.open("wb") as writer:
            start = reader.read(3)
            writer.write(start.removeprefix(codecs.BOM_UTF8))
            while block := reader.read(BLOCK):
                writer.write(block)
        rows = pl.scan_ndjson(glob.escape(str(spool)), schema=dict.fromkeys(names, pl.String))
        try:
            rows.select(pl.col(names[0]).count()).collect(engine="streaming")  # counting rows would parse none
        except pl.exceptions.ComputeError as error:
            raise _json_fault(self.file, self.name) or InputError(f"{self.name}: {_one_line(error)}") from error
        return rows

    def _text_to_parquet(self, names: list[str], spool: Path) -> None:
        try:
            with pq.ParquetWriter(
                spool, pa.schema([(name, pa.string()) for name in names]), compression="lz4"
            ) as writer:
                for batch in self._text_batches():
                    writer.write_batch(batch.select(names))
        except pa.ArrowInvalid as error:
            reason = _one_line(error).removeprefix("CSV parse error: ")
            if "UTF8" in reason:
                raise InputError(f"{self.name} is not UTF-8 ({reason:.120}): save it as UTF-8") from error
            raise InputError(f"{self.name}: {reason:.200}: mend the row (or its quotes)") from error

    def _text_batches(self) -> Iterator[pa.RecordBatch]:
        names = ["1"] if self.separator == MANY else [str(n) for n in range(1, len(self.columns) + 1)]
        read = pa_csv.ReadOptions(
            column_names=names,
            block_size=BLOCK,
            use_threads=False,
            skip_rows_after_names=self.blank_lines + 1 if self.header else 0,
        )
        parse = pa_csv.ParseOptions(
            delimiter="\x01" if self.separator == MANY else self.separator,
            quote_char='"' if self.quoted else False,
            newlines_in_values=self.quoted,
        )
        convert = pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
        row = 0
        with open_as_utf8(self.file, self.encoding) as stream:
            for batch in pa_csv.open_csv(stream, read_options=read, parse_options=parse, convert_options=convert):
                marked = pl.Series(batch.column(0)).str.starts_with("\ufeff").arg_true()
                if len(marked):
                    raise pa.ArrowInvalid(f"Row #{row + marked[0] + 1}: a byte order mark (a second file from here?)")
                if self.separator == MANY:
                    batch = self._split(batch, row)
                row += batch.num_rows
                yield batch.rename_columns(list(self.columns))

    def _split(self, batch: pa.RecordBatch, rows_before: int) -> pa.RecordBatch:
        fields = pl.Series(batch.column(0)).str.split(MANY)
        wrong = (fields.list.len() != len(self.columns)).arg_true()
        if len(wrong):
            found = len(fields[wrong[0]])
            raise pa.ArrowInvalid(
                f"Row #{rows_before + wrong[0] + 1}: Expected {len(self.columns)} columns, got {found}"
            )
        columns = [fields.list.get(n).to_arrow().cast(pa.string()) for n in range(len(self.columns))]
        return pa.RecordBatch.from_arrays(columns, [str(n) for n in range(len(columns))])


def open_table(file: Path, path: PurePosixPath, wanted: Wanted) -> Table:
    """Find format, columns and header of a file; path: its path in the source. InputError if it is not a table."""
    name, suffix = path.as_posix(), table_suffix(path)
    with file.open("rb") as reader:
        magic = reader.read(4)
    if magic == b"PAR1":
        try:
            return Table(file, name, tuple(pq.read_schema(file).names), "parquet")
        except pa.ArrowInvalid as error:
            raise InputError(f"{name} is a damaged Parquet file ({_one_line(error):.80}): get it anew") from error
    if suffix in (".parquet", ".pq"):
        raise InputError(f"{name} is no Parquet file: get it anew")
    sample, whole = _read_sample(file)
    encoding = find_encoding(file, path, sample)
    text = codecs.getincrementaldecoder(encoding)("replace").decode(sample).removeprefix("\ufeff")
    if suffix in (".json", ".jsonl", ".ndjson") or text.lstrip().startswith("{"):
        return _open_json(file, name, text, encoding)
    lines = [f"{line}\n" for line in text.split("\n")]
    separator, quoted, rows = find_dialect(lines if whole or len(lines) == 1 else lines[:-1], suffix, name)
    header = is_header(rows[0], wanted)
    columns = tuple(cell.strip() for cell in rows[0]) if header else _default_names(path, len(rows[0]))
    if len(set(columns)) < len(columns):
        raise InputError(f"{name}: two columns have one name ({', '.join(columns)}): rename one")
    columns = tuple(RECBOLE_TYPE.sub("", column) for column in columns)
    if quoted:
        quoted = not any(RECBOLE_TYPE.search(cell) for cell in rows[0]) and is_quoted(file, name, separator, encoding)
    blank_lines = sum(1 for _ in takewhile(lambda line: not line.strip(), lines))
    return Table(file, name, columns, "text", header, tuple(rows[0]), separator, quoted, encoding, blank_lines)


def _read_sample(file: Path) -> tuple[bytes, bool]:
    """The first bytes of a file, with its first line if that is no longer than a block; whether they are all."""
    with open_unpacked(file) as stream:
        sample = stream.read(SAMPLE)
        while b"\n" not in sample and len(sample) < BLOCK and (more := stream.read(SAMPLE)):
            sample += more
        return sample, not stream.read(1)


def _default_names(path: PurePosixPath, width: int) -> tuple[str, ...]:
    known = LAYOUTS.get(unpacked_name(path), ())
    return (*known, *(str(n) for n in range(len(known) + 1, width + 1)))[:width]


def _open_json(file: Path, name: str, text: str, encoding: str) -> Table:
    if encoding != "utf-8":
        raise InputError(f"{name} is not UTF-8: save it as UTF-8")
    fault = InputError(f"{name} is not JSON Lines: write one JSON object on each line")
    if text.lstrip().startswith("["):  # an array, all of it on one line perhaps, and too large to read at once
        raise fault
    keys = _json_keys(file)
    if not keys:
        raise _json_fault(file, name) or fault
    return Table(file, name, tuple(keys), "json", nested={key: line for key, line in keys.items() if line})


def _json_keys(file: Path) -> dict[str, int]:
    """{key: the first line where its value is a list or an object, else 0}. Bad lines are named when they are read."""
    keys: dict[str, int] = {}
    for number, line in _json_lines(file):
        try:
            entry = from_json(line)  # three times as fast as json
        except ValueError:
            continue
        if isinstance(entry, dict):
            for key, value in entry.items():
                keys[key] = keys.get(key) or (number if isinstance(value, list | dict) else 0)
    return keys


def _json_fault(file: Path, name: str) -> InputError | None:
    for number, line in _json_lines(file):
        try:
            if not isinstance(_from_json(line), dict):
                return InputError(f"{name}, line {number}: not a JSON object: write one on each line")
        except UnicodeDecodeError:
            return InputError(f"{name}, line {number} is not UTF-8: save it as UTF-8")
        except ValueError as error:
            return InputError(f"{name}, line {number} is not JSON ({_one_line(error)}): one object a line")
    return None


def _json_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers."""
    with open_unpacked(file) as stream, io.BufferedReader(stream) as lines:
        for number, line in enumerate(lines, 1):
            if text := (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip():
                yield number, text


def _from_json(line: bytes) -> object:
    return json.loads(line.decode(), parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name}: write null")  # NaN and Infinity, which Python writes though JSON does not have them


def _scan_parquet(file: Path) -> pl.LazyFrame:
    """One file, whatever characters and `key=value` parts its path has."""
    return pl.scan_parquet(file, glob=False, hive_partitioning=False)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
