"""Tables of any common kind, row by row: CSV, TSV, JSON, JSON Lines, Parquet, Arrow.

A kind is told by the file's content where its name says too little: JSON Lines called .json,
columns apart by semicolons. Only the columns that are asked for are read.
"""

import codecs
import csv
import io
import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from mmnet.errors import UserError


KINDS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow")
BINARY = (".parquet", ".arrow")  # of Arrow's types, which may hold pictures
LINES = 20  # that say what columns JSON has
ROWS = 1000  # read at once


def columns_of(path: Path) -> list[str]:
    """The names of a table's columns, in order. Raises UserError naming the file."""
    if path.suffix.lower() in BINARY:
        return list(schema_of(path).names)
    if path.suffix.lower() in (".csv", ".tsv"):
        return _header(path)[0]
    found: dict[str, None] = {}
    for number, (_, row) in enumerate(_json(path)):
        found.update(dict.fromkeys(row))
        if number == LINES:
            break
    return list(found)


def rows_of(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """(number, values of these columns) of each row; None for what a row does not say.

    The number is that of the line in text, of the row from 1 elsewhere. Raises UserError naming
    file and line.
    """
    kind = path.suffix.lower()
    if kind in BINARY:
        yield from _arrow(path, columns)
    elif kind in (".csv", ".tsv"):
        yield from _csv(path, columns)
    else:
        for number, row in _json(path):
            yield number, tuple(row.get(column) for column in columns)


def schema_of(path: Path) -> pa.Schema:
    """The types of a Parquet or Arrow file. Raises UserError."""
    try:
        if path.suffix.lower() == ".parquet":
            return pq.read_schema(path)
        with pa.memory_map(str(path)) as file:
            return _reader(file).schema
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: {_said(error)}") from error


def batches_of(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """A Parquet or Arrow file, some rows at a time. Raises UserError."""
    try:
        if path.suffix.lower() == ".parquet":
            with pq.ParquetFile(path) as table:
                yield from table.iter_batches(ROWS, columns=list(columns))
            return
        with pa.memory_map(str(path)) as file:
            reader = _reader(file)
            several = (
                map(reader.get_batch, range(reader.num_record_batches))
                if isinstance(reader, pa.RecordBatchFileReader)
                else reader
            )
            for batch in several:
                yield batch.select(list(columns))
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: {_said(error)}") from error


def _arrow(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    number = 0
    for batch in batches_of(path, columns):
        for start in range(0, batch.num_rows, ROWS):
            part = batch.slice(start, ROWS)
            try:
                values = [part.column(column).to_pylist() for column in columns]
            except (UnicodeDecodeError, ValueError, pa.ArrowException) as error:
                raise UserError(f"{path}, rows from {number + 1}: {_said(error)}") from error
            for row in zip(*values, strict=True):
                number += 1
                yield number, row


def _reader(file: pa.NativeFile) -> Any:
    try:
        return pa.ipc.open_file(file)
    except pa.ArrowInvalid:
        file.seek(0)
        return pa.ipc.open_stream(file)  # as the library datasets writes it


def _header(path: Path) -> tuple[list[str], str]:
    """The names of a CSV's columns, and what stands between them."""
    try:
        with _text(path) as file:
            line = file.readline(1_000_000)
    except OSError as error:
        raise UserError(f"{path}: {error}") from error
    if not line.strip():
        raise UserError(f"{path}: empty, expected a header with names of columns")
    between = "\t" if path.suffix.lower() == ".tsv" else max(",\t;|", key=line.count)
    try:
        header = next(csv.reader([line], delimiter=between, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}, line 1: {error}") from error
    return [name.strip() for name in header], between


def _csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    header, between = _header(path)
    places = [header.index(column) for column in columns]
    begins = 1
    try:
        with _text(path) as file:
            reader = csv.reader(file, delimiter=between, strict=True)
            for row in reader:
                if row and begins > 1:
                    if len(row) != len(header):
                        raise UserError(
                            f"{path}, line {begins}: {len(row)} fields, expected {len(header)} as "
                            f"in the header"
                        )
                    yield begins, tuple(row[place] or None for place in places)
                begins = reader.line_num + 1
    except (OSError, csv.Error) as error:
        raise UserError(f"{path}, line {begins}: {error}") from error


def _text(path: Path) -> io.TextIOWrapper:
    # A byte that is no UTF-8 costs its character.
    return path.open("r", encoding="utf-8-sig", errors="replace", newline="")


def _json(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            start = text[:64].removeprefix(codecs.BOM_UTF8).lstrip()
            if start.startswith(b"["):
                whole = text[:].removeprefix(codecs.BOM_UTF8)  # which its entries are parts of
                rows: Iterable[Any] = msgspec.json.decode(whole, type=list[msgspec.Raw])
                what = "entry"
            else:
                # In bytes, where "\n" alone ends a line.
                rows = iter(text.readline, b"")
                what = "line"
            for number, row in enumerate(rows, 1):
                line = bytes(row)
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    yield number, msgspec.json.decode(line, type=dict[str, Any])
    except OSError as error:
        raise UserError(f"{path}: {error}") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        where = f", {what} {number}" if number else ""
        raise UserError(f"{path}{where}: {error}") from error


def _said(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
