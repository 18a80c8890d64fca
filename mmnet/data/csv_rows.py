"""CSV files of millions of rows, packed or not, one row after the other."""

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from mmnet.errors import UserError, nearest


def read_rows(
    path: Path, columns: tuple[str, ...], absent: str | None = None
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line, fields of these columns) of each row of a UTF-8 file with a header.

    The line is that on which the row ends. absent: what stands for fields that a short row
    lacks; None: such a row is refused. Raises UserError naming the file and the line, also when
    a column is missing.
    """
    try:
        with opened(path) as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            for column in columns:
                if column not in header:
                    near = nearest(column, header) or f"; it has {', '.join(header)}"
                    raise UserError(f"{path}, line 1: the header has no column '{column}'{near}")
            places = [header.index(column) for column in columns]
            width = len(header)
            for row in reader:
                if len(row) != width and row:
                    if absent is None or len(row) > width:
                        raise UserError(
                            f"{path}, line {reader.line_num}: {len(row)} fields, expected "
                            f"{width} as in the header"
                        )
                    row += [absent] * (width - len(row))
                if row:  # a blank line is none
                    yield reader.line_num, tuple(row[place] for place in places)
    except (OSError, EOFError, csv.Error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: {error}") from error


def opened(path: Path) -> TextIO:
    """A UTF-8 file, packed by gzip or not; a byte that is no UTF-8 costs its character."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def number(text: str, path: Path, line: int, what: str) -> float:
    """A field that is a number. Raises UserError."""
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{path}, line {line}: {what} '{text}' is no number") from None
