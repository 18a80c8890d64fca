"""Finding a published dataset by its layout, and parsing its JSON and CSV."""

import bz2
import codecs
import csv
import errno
import fnmatch
import gzip
import io
import json
import mmap
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import msgspec

from mmnet.errors import UserError, nearest, reason


T = TypeVar("T")

DAMAGE = (OSError, EOFError, zlib.error)  # of a packed file
DEPTH = 3  # folders below paths.data in which a dataset is looked for


def anything(folder: Path) -> bool:
    """Whether a folder that looks right is the one: it is."""
    return True


def root_of(
    name: str,
    root: str | None,
    data: Path,
    layouts: list[list[str]],
    accept: Callable[[Path], bool] = anything,
) -> Path:
    """The folder of a dataset: `root`, or the one at or below `data`. Raises UserError."""
    if root is None:
        return find_root(name, data, layouts, accept)
    return check_root(name, Path(root), layouts)


def find_root(
    name: str,
    data: Path,
    layouts: list[list[str]],
    accept: Callable[[Path], bool] = anything,
) -> Path:
    """The one folder at or below `data` that holds every part of one of `layouts`.

    A part is a path relative to that folder, in which * and ? are wild; where the first one of
    a layout begins tells a folder that is nearly right. `accept` looks into files whose names
    say too little. Raises UserError if there is none, or several.
    """
    found: dict[Path, Path] = {}
    nearly = []
    marks = {Path(layout[0]).parts[0] for layout in layouts}

    def unread(error: OSError) -> None:
        if error.errno != errno.ENOENT:
            nearly.append(f"{error.filename}: {reason(error)}")

    for path, folders, files in os.walk(data, followlinks=True, onerror=unread):
        folder = Path(path)
        if any(fnmatch.filter((*folders, *files), mark) for mark in marks):
            try:
                missing = lacking(folder, layouts)
            except OSError as error:
                unread(error)
                continue
            if missing:
                nearly.append(f"{folder} lacks {', '.join(missing)}")
            elif accept(folder):
                found[folder.resolve()] = folder
                folders.clear()  # hundreds of thousands of files, and no dataset among them
            else:
                nearly.append(f"{folder} has the names, but is none by what is in it")
        if len(folder.relative_to(data).parts) >= DEPTH:
            folders.clear()
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        have = f"found {', '.join(sorted(map(str, found.values())))}"
    elif nearly or os.access(data, os.F_OK):
        have = f"found none ({'; '.join(sorted(nearly)) or 'nothing like it'})"
    else:
        have = "there is no such folder"
    others = " (or another edition of them)" if len(layouts) > 1 else ""
    raise UserError(
        f"dataset={name} wants one folder at or up to {DEPTH} below paths.data={data} that holds "
        f"{', '.join(layouts[0])}{others}; {have}. Name it with dataset.root=<folder>"
    )


def check_root(name: str, root: Path, layouts: list[list[str]]) -> Path:
    """`root`, if it holds every part of one of `layouts`. Raises UserError saying what not."""
    try:
        missing = lacking(root, layouts)
    except OSError as error:  # a folder that may not be looked into
        raise UserError(f"dataset.root={root}: {reason(error)}") from error
    if missing:
        raise UserError(f"dataset.root={root} is no {name}: it lacks {', '.join(missing)}")
    return root


def lacking(root: Path, layouts: list[list[str]]) -> list[str]:
    """The parts that `root` lacks of the layout it fits best. Raises OSError."""
    return min(([part for part in layout if not there(root, part)] for layout in layouts), key=len)


def there(root: Path, part: str) -> bool:
    """Whether `root` holds something of that name, in which * and ? are wild. Raises OSError."""
    if not set(part) & set("*?["):
        return (root / part).exists()
    return next(root.glob(part), None) is not None


def layout_of(root: Path, layouts: list[list[str]]) -> int:
    """The number of the first layout that `root` holds all parts of. Raises OSError."""
    return next(number for number, one in enumerate(layouts) if not lacking(root, [one]))


def inside(place: str) -> bool:
    """Whether a path that stands in a file stays in the folder that it is relative to."""
    parts = place.replace("\\", "/").split("/")
    return bool(place) and parts[0] != "" and ".." not in parts and ":" not in parts[0]


def is_bare(name: str) -> bool:
    """Whether a name that stands in a file is that of a file or folder, without a path."""
    return not set(name) & set("/\\:\0") and name not in ("", ".", "..")


def read_json(path: Path, kind: type[T]) -> T:
    """What `kind`, a msgspec type, asks for of the file, packed or not (see `opened`).

    Raises UserError naming the file and the place in it.
    """
    try:
        with opened(path) as file:
            begin = file.read(1)
            if begin == codecs.BOM_UTF8[:1] or not isinstance(file, io.BufferedReader):
                return _decoded((begin + file.read()).removeprefix(codecs.BOM_UTF8), kind)
        # Mapped, not read: a file may have 450 MB of which a tenth is asked for.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return _decoded(text, kind)
    except (msgspec.MsgspecError, *DAMAGE, ValueError, RecursionError) as error:
        raise UserError(f"{path}: {error}") from error


def read_json_array(path: Path, kind: type[T]) -> Iterator[tuple[int, T]]:
    """(number from 0, content) of each element of a file that is one array, see `read_json`.

    Elements are made one by one of the mapped file, so that one of a gigabyte takes little
    memory. Raises UserError naming the file and the element.
    """
    number = 0
    try:
        with path.open("rb") as file:
            # Not closed by hand: elements look into it.
            text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        for number, element in enumerate(msgspec.json.decode(text, type=list[msgspec.Raw])):
            try:
                content = _decoded(memoryview(element), kind)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                raise UserError(f"{path}, element {number}: {error}") from error
            yield number, content
    except (msgspec.MsgspecError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: {error}") from error


def read_json_lines(path: Path, kind: type[T]) -> Iterator[tuple[int, T]]:
    """(number, content) of each line that is not blank, see `read_json` and `opened`.

    Raises UserError naming the file and the line.
    """
    number = 0
    try:
        # In bytes, which end a line at "\n" alone; in text some characters inside a string do too.
        with opened(path) as file:
            for number, line in enumerate(file, 1):
                text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if text.strip():
                    yield number, _decoded(text, kind)
    except DAMAGE as error:
        raise UserError(f"{path}, after line {number}: {error}") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UserError(f"{path}, line {number}: {error}") from error


def lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, which end at "\\n" alone; a byte that is no UTF-8 costs its
    character. Raises UserError."""
    number = -1
    try:
        with opened(path) as file:
            for number, line in enumerate(file):
                text = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
                yield text.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")
    except DAMAGE as error:
        raise UserError(f"{path}, after line {number + 1}: {error}") from error


def opened(path: Path) -> IO[bytes]:
    """A file, unpacked (gzip, bzip2) by what it begins with, whatever its name.

    Raises OSError, and while it is read one of DAMAGE.
    """
    with path.open("rb") as file:
        begin = file.read(3)
    if begin == b"BZh":
        return bz2.open(path)  # of any number of streams
    return cast(IO[bytes], gzip.open(path)) if begin[:2] == b"\x1f\x8b" else path.open("rb")


def read_csv(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """(number, content by column) of each row; the number is that of the line it begins on.

    The file is UTF-8 with a header; a byte that is not costs its character. Raises UserError
    naming the file and the line, also when one of `columns` is missing.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig", "replace")
    except OSError as error:
        raise UserError(f"{path}: {error}") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    begins = 1
    try:
        for row in reader:
            if row:  # a blank line is none
                rows.append((begins, row))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {begins}: {error}") from error
    if not rows:
        raise UserError(f"{path}: empty, expected a header with {', '.join(columns)}")
    (first, header), *rest = rows
    for column in columns:
        if column not in header:
            near = nearest(column, header) or f"; it has {', '.join(header)}"
            raise UserError(f"{path}, line {first}: the header has no column '{column}'{near}")
    for number, row in rest:
        if len(row) != len(header):
            raise UserError(
                f"{path}, line {number}: {len(row)} fields, expected {len(header)} as in the header"
            )
    return [(number, dict(zip(header, row, strict=True))) for number, row in rest]


def _decoded(text: Any, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        # Half a character in some text, which at the end of the file looks like its end: json
        # lets it through, and it is replaced where the text is cleaned.
        if not any(word in str(error) for word in ("surrogate", "truncated")):
            raise
        try:
            loose = json.loads(bytes(text))
        except ValueError:
            raise error from None
        return msgspec.convert(loose, type=kind)
