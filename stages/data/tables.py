"""Read a table as people have it (delimited text, JSON Lines, Parquet; plain, gzip or zstd) as columns of text."""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from stages.data.columns import LAYOUTS, RECBOLE_TYPE, Wanted, is_header
from stages.errors import InputError

SUFFIXES = {".csv", ".tsv", ".txt", ".dat", ".data", ".inter", ".item", ".json", ".jsonl", ".ndjson", ".parquet", ".pq"}
COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # by their first bytes
PACKED_SUFFIXES = {".gz", ".zst", ".zstd"}
SEPARATORS = {".tsv": "\t", ".inter": "\t", ".item": "\t", ".dat": "::"}  # tried first; others: comma
SAMPLE = 1 << 16  # bytes from which separator, quotes and header are told
BLOCK = 1 << 24  # bytes of text in memory at a time, and the longest row
csv.field_size_limit(BLOCK)
MANY = "::"  # the one separator of two characters


@dataclass(frozen=True)
class Table:
    """A table whose columns have been told.

    file: where it is; name: how messages call it; columns: the names, or '1', '2', … without a header;
    first_row: as it stands in a text file, be it a header or not.
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

    def scan(self, columns: dict[str, str], spool: Path) -> pl.LazyFrame:
        """Some columns as a lazy frame of text (Parquet: text, numbers or times), with `row`, counted from 1.

        columns: {name in the frame: name in the file}; spool: a file to write to. Blank lines are not counted.
        Raises InputError with the row at fault.
        """
        names = list(dict.fromkeys(columns.values()))
        if self.kind == "parquet":
            rows = pl.scan_parquet(self.file).select(names)
        elif self.kind == "json":
            rows = self._scan_json(names, spool)
        else:
            self._text_to_parquet(names, spool)
            rows = pl.scan_parquet(spool)
        return rows.select(pl.col(old).alias(new) for new, old in columns.items()).with_row_index("row", offset=1)

    def _scan_json(self, names: list[str], spool: Path) -> pl.LazyFrame:
        with _open(self.file) as reader, spool.open("wb") as writer:
            start = reader.read(3)
            writer.write(start.removeprefix(codecs.BOM_UTF8))
            while block := reader.read(BLOCK):
                writer.write(block)
        rows = pl.scan_ndjson(spool, schema=dict.fromkeys(names, pl.String))
        try:
            rows.select(pl.len()).collect(engine="streaming")
        except pl.exceptions.ComputeError as error:
            raise self._json_fault(spool) or InputError(f"{self.name}: {_one_line(error)}") from error
        return rows

    def _json_fault(self, path: Path) -> InputError | None:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    if line.strip() and not isinstance(json.loads(line), dict):
                        return InputError(f"{self.name}, line {number}: not a JSON object: write one on each line")
                except ValueError as error:
                    return InputError(f"{self.name}, line {number} is not JSON ({_one_line(error)}): one object a line")
        return None

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
            skip_rows_after_names=int(self.header),
        )
        parse = pa_csv.ParseOptions(
            delimiter="\x01" if self.separator == MANY else self.separator,
            quote_char='"' if self.quoted else False,
            newlines_in_values=self.quoted,
        )
        convert = pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
        row = 0
        with _open_as_utf8(self.file, self.encoding) as stream:
            for batch in pa_csv.open_csv(stream, read_options=read, parse_options=parse, convert_options=convert):
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


def table_suffix(path: PurePosixPath) -> str:
    """The suffix that tells the format, without `.gz` or `.zst`; '' when the file is no table by its name."""
    suffix = PurePosixPath(_unpacked_name(path)).suffix
    return suffix if suffix in SUFFIXES else ""


def _unpacked_name(path: PurePosixPath) -> str:
    """The name of a file without `.gz` or `.zst`, in small letters."""
    name = path.name.lower()
    return PurePosixPath(name).stem if PurePosixPath(name).suffix in PACKED_SUFFIXES else name


def open_table(file: Path, path: PurePosixPath, wanted: Wanted) -> Table:
    """Tell format, columns and header of a file; path: its name in the source. Raises InputError if it is no table."""
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
    with _open(file) as stream:
        sample = stream.read(SAMPLE)
    whole = len(sample) < SAMPLE
    encoding = _encoding(file, path, sample)
    text = codecs.getincrementaldecoder(encoding)("replace").decode(sample).removeprefix("\ufeff")
    if suffix in (".json", ".jsonl", ".ndjson") or text.lstrip().startswith("{"):
        return _open_json(file, name, text, encoding)
    lines = [f"{line}\n" for line in text.split("\n")]
    separator, quoted, rows = _dialect(lines if whole else lines[:-1], suffix, name)
    header = is_header(rows[0], wanted)
    columns = tuple(cell.strip() for cell in rows[0]) if header else _default_names(path, len(rows[0]))
    if len(set(columns)) < len(columns):
        raise InputError(f"{name}: two columns have one name ({', '.join(columns)}): rename one")
    columns = tuple(RECBOLE_TYPE.sub("", column) for column in columns)
    if quoted:
        quoted = not any(RECBOLE_TYPE.search(cell) for cell in rows[0]) and _is_quoted(file, name, separator, encoding)
    return Table(file, name, columns, "text", header, tuple(rows[0]), separator, quoted, encoding)


def _default_names(path: PurePosixPath, width: int) -> tuple[str, ...]:
    known = LAYOUTS.get(_unpacked_name(path), ())
    return (*known, *(str(n) for n in range(len(known) + 1, width + 1)))[:width]


def _open_json(file: Path, name: str, text: str, encoding: str) -> Table:
    if encoding != "utf-8":
        raise InputError(f"{name} is not UTF-8: save it as UTF-8")
    keys: dict[str, None] = {}
    for line in text.split("\n")[:100]:
        try:
            entry = json.loads(line)
        except ValueError:  # the sample's last line is cut; other faults are found when all is read
            continue
        if isinstance(entry, dict):
            keys |= dict.fromkeys(entry)
    if not keys:
        raise InputError(f"{name} is not JSON Lines: write one JSON object on each line")
    return Table(file, name, tuple(keys), "json")


def _dialect(lines: list[str], suffix: str, name: str) -> tuple[str, bool, list[list[str]]]:
    """The separator by which all lines of the sample have the same number of fields; whether some are quoted."""
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise InputError(f"{name} is empty: get it anew")
    first = SEPARATORS.get(suffix, ",")
    for separator in dict.fromkeys((first, "\t", MANY, "|", ";", ",")):
        for quoted in (True,) if separator in ",;" else (True, False):
            rows = _fields(lines, separator, quoted)
            if rows and len(rows[0]) > 1 and len({len(row) for row in rows}) == 1:
                return separator, quoted, rows
    rows = _fields(lines, first, True) or _fields(lines, first, False)
    return first, True, rows  # one column, or rows of different widths, which reading names


def _fields(lines: list[str], separator: str, quoted: bool) -> list[list[str]]:
    if separator == MANY:
        return [] if quoted else [line.rstrip("\r\n").split(MANY) for line in lines]
    rows = []
    try:
        for row in csv.reader(
            iter(lines), delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
        ):
            rows.append(row)
    except csv.Error:  # quotes that are no quotes; or a quoted field that the sample cuts, which is no matter
        return rows if len(rows) > len(lines) // 2 else []
    return rows


def _is_quoted(file: Path, name: str, separator: str, encoding: str) -> bool:
    """Whether quotes enclose fields, or are part of the text.

    Raises InputError when fields begin with quotes that do not enclose them, unless tabs separate the fields: there
    most programs do not quote at all.
    """
    if not _has_quoted_field(file, separator, encoding):
        return False
    row = 0
    with _open_as_utf8(file, encoding) as stream, io.TextIOWrapper(stream, "utf-8", "replace", newline="") as text:
        try:
            for row, _ in enumerate(csv.reader(text, delimiter=separator, strict=True), 1):  # noqa: B007 - counts
                pass
        except csv.Error as error:
            if separator == "\t":
                return False
            raise InputError(f"{name}, row {row + 1}: {error}: double the quotes inside a quoted field") from error
    return True


def _has_quoted_field(file: Path, separator: str, encoding: str) -> bool:
    """Whether any field of the file begins with a quote. If none does, quotes are part of the text."""
    if separator == MANY:
        return False
    start = re.compile(rb"(^|[\n\r" + re.escape(separator.encode()) + rb'])[ ]*"')
    tail = b"\n"
    with _open_as_utf8(file, encoding) as stream:
        while block := stream.read(BLOCK):
            if start.search(tail + block):
                return True
            tail = block[-1:]
    return False


def _encoding(file: Path, path: PurePosixPath, sample: bytes) -> str:
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if _unpacked_name(path) in LAYOUTS and not _is_utf8(file):
        return "latin-1"  # MovieLens' older sets
    return "utf-8"


def _is_utf8(file: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with _open(file) as stream:
        try:
            for block in chain(iter(lambda: stream.read(BLOCK), b""), [b""]):
                decoder.decode(block, final=not block)
        except UnicodeDecodeError:
            return False
    return True


def _open(file: Path) -> pa.NativeFile:
    """A file's bytes, decompressed. Reading raises OSError when the compressed data is damaged."""
    with file.open("rb") as reader:
        start = reader.read(4)
    codec = next((codec for magic, codec in COMPRESSED.items() if start.startswith(magic)), None)
    return pa.input_stream(str(file), compression=codec)


def _open_as_utf8(file: Path, encoding: str) -> pa.NativeFile:
    stream = _open(file)
    return stream if encoding == "utf-8" else pa.transcoding_input_stream(stream, encoding, "utf-8")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
