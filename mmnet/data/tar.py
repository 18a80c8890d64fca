"""Tar archives, read strictly: where each member lies, and an error where that is in doubt.

Other readers take a damaged header for the end of the archive, and lose what follows without a
word. Here every header is held against its checksum and its form, and the archive must end as
POSIX.1-1988 (ustar) says: with two blocks of zeros, and nothing behind them. GNU's long names and
sizes and the extended headers of POSIX.1-2001 (pax) are understood. Nothing is ever extracted,
and no link is followed: names and kinds are data.
"""

import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmnet.errors import UserError


BLOCK = 512
ZEROS = bytes(BLOCK)
LONGEST_NAME = 2**20  # bytes of a long name or an extended header
FILES = (b"0", b"\0", b"7")
KINDS = {
    b"1": "hard links",
    b"2": "symbolic links",
    b"3": "devices",
    b"4": "devices",
    b"5": "folders",
    b"6": "pipes",
    b"S": "sparse files",
}
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
OCTAL = re.compile(rb" *([0-7]+)[ \0]*|[ \0]*")
# Blanks behind the checksum are all that may differ: it does not count itself.
CHECKSUM = re.compile(rb"[ 0]*([0-7]+)[ \0]+")
RECORD = re.compile(rb"([1-9][0-9]*) ([^=\n]+)=")


class Entry(NamedTuple):
    """One member as its header describes it."""

    name: str
    kind: str  # "": a file; else one of KINDS, or "members of unknown kinds"
    offset: int  # of its content in the archive, bytes
    size: int  # bytes


class _Damage(Exception):
    """What is wrong with a header."""


def packed_as(start: bytes) -> str | None:
    """What compressed a file that begins like this; None: nothing that is known here."""
    return next((name for magic, name in PACKED.items() if start.startswith(magic)), None)


def walk(path: Path, data: mmap.mmap | bytes) -> Iterator[Entry]:
    """All members of an archive, in order; `data` is its content, `path` how errors call it.

    Raises UserError naming the byte where the archive is damaged or cut short.
    """
    end, place = len(data), 0
    told: dict[str, str] = {}  # what headers before this one say of it
    while True:
        header = data[place : place + BLOCK]
        try:
            if header == ZEROS:
                _check_end(data, place)
                if told:
                    raise _Damage("a long name that belongs to no member")
                return
            if len(header) < BLOCK:
                raise _Damage("the archive ends without the two blocks of zeros that end a tar")
            _check_sum(header)
            kind, size = header[156:157], _number(header[124:136], "size")
            start = place + BLOCK
            if kind in b"LKxg" and size > LONGEST_NAME:
                raise _Damage(f"a name of {size:,} bytes")
            if kind in (b"1", b"2", b"3", b"4", b"5", b"6") and size:
                raise _Damage(f"{KINDS[kind]} have no content, this one has {size:,} bytes")
            if kind not in (b"L", b"K", b"x", b"g") and "size" in told:
                size = int(told["size"])
            if start + size > end:
                raise _Damage(f"a member of {size:,} bytes where {end - start:,} are left")
            if kind == b"L":
                told["path"] = _text(data[start : start + size].rstrip(b"\0"))
            elif kind == b"x":
                told |= _records(data[start : start + size])
            elif kind == b"g":
                _check_global(_records(data[start : start + size]))
            elif kind != b"K":
                yield _entry(header, kind, told, start, size)
                told = {}
        except _Damage as damage:
            raise UserError(
                f"{path}: damaged or cut short at byte {place:,}: {damage}. Every member before it "
                f"is whole; fetch or write the file again"
            ) from None
        place = start + -(-size // BLOCK) * BLOCK


def _entry(header: bytes, kind: bytes, told: dict[str, str], start: int, size: int) -> Entry:
    name = told.get("path")
    if name is None:
        name = _text(header[:100].partition(b"\0")[0])
        if header[257:265] == b"ustar\x0000" and header[345] != 0:
            name = _text(header[345:500].partition(b"\0")[0]) + "/" + name
    if not name:
        raise _Damage("a member without a name")
    if kind == b"\0" and name.endswith("/"):  # as it was before ustar
        kind = b"5"
    if "sparse" in told:
        kind = b"S"
    found = "" if kind in FILES else KINDS.get(kind, "members of unknown kinds")
    return Entry(name, found, start, size)


def _check_sum(header: bytes) -> None:
    match = CHECKSUM.fullmatch(header, 148, 156)
    if match is None:
        raise _Damage("no checksum where a header has one")
    asked = int(match[1], 8)
    total = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    # Some old writers summed signed bytes.
    if asked != total and asked != total - 256 * sum(byte > 127 for byte in header):
        raise _Damage(f"a header whose checksum says {asked} and whose bytes add up to {total}")


def _check_end(data: mmap.mmap | bytes, place: int) -> None:
    if len(data) < place + 2 * BLOCK:
        raise _Damage("one block of zeros, where a tar ends with two")
    step = 2**20
    for start in range(place, len(data), step):
        if data[start : start + step].strip(b"\0"):
            raise _Damage("something other than zeros behind the end of the archive")


def _number(field: bytes, what: str) -> int:
    if field[0] == 0x80:  # GNU: too large for octal digits
        return int.from_bytes(field[1:], "big")
    match = OCTAL.fullmatch(field)
    if match is None:
        raise _Damage(f"a {what} that is no number: {field!r}")
    return int(match[1] or b"0", 8)


def _records(content: bytes) -> dict[str, str]:
    """What an extended header says of the name, the size and holes; the rest is of no use here."""
    found, place = {}, 0
    while place < len(content):
        match = RECORD.match(content, place)
        end = place + int(match[1][:10]) if match else 0
        if match is None or not match.end() < end <= len(content) or content[end - 1] != 0x0A:
            raise _Damage("an extended header that is none")
        key, value = _text(match[2]), content[match.end() : end - 1]
        if key == "path":
            found["path"] = _text(value)
        elif key == "size":
            if not value.isdigit() or len(value) > 18:
                raise _Damage(f"a size that is no number: {value[:20]!r}")
            found["size"] = value.decode()
        elif key.startswith("GNU.sparse."):
            found["sparse"] = ""
        place = end
    return found


def _check_global(records: dict[str, str]) -> None:
    if records:
        raise _Damage(f"one {' and '.join(records)} for all members that follow")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
