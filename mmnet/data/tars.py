"""Pictures inside uncompressed tars, listed once and then read in place by their offset."""

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mmnet.data.tar import BLOCK, packed_as
from mmnet.errors import UserError


PLACE = re.compile(r"(.+)@(\d+)\+(\d+)")


class Member(NamedTuple):
    """One file in a tar."""

    name: str
    offset: int  # of its first byte in the file that holds the tar
    size: int


def members(path: Path) -> Iterator[Member]:
    """The regular files of a tar, in its order; of tars within it, theirs.

    Raises UserError for what is compressed, cut off or damaged, naming the file and the place.
    """
    if compressed(path):
        raise UserError(f"{path} is compressed, so that nothing in it can be read in place")
    try:
        with path.open("rb") as file:
            yield from _members(file, path, 0, path.stat().st_size)
    except OSError as error:
        raise UserError(f"{path}: {error}") from error


def compressed(path: Path) -> bool:
    """Whether a file begins as gzip, bzip2, xz or Zstandard do."""
    with path.open("rb") as file:
        return packed_as(file.read(6)) is not None


def place_of(tar: str, member: Member) -> str:
    """What a record says of a picture in a tar; see `read_place`."""
    return f"{tar}@{member.offset}+{member.size}"


def read_place(root: Path, place: str) -> bytes | None:
    """The bytes of a member of a tar below `root`; None if the place is none in a tar."""
    found = PLACE.fullmatch(place)
    if found is None:
        return None
    with (root / found[1]).open("rb") as file:
        return os.pread(file.fileno(), int(found[3]), int(found[2]))


def _members(file: BinaryIO, path: Path, start: int, end: int) -> Iterator[Member]:
    file.seek(start)
    last = start
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None and member.offset < end:
                # A million of them are a gigabyte; typeshed does not know them.
                tar.members.clear()  # type: ignore[attr-defined]
                last = member.offset
                stop = member.offset_data + member.size
                if member.isreg() and stop > end:
                    raise tarfile.ReadError(f"{member.name} is cut off")
                if member.isreg() and member.name.endswith(".tar"):
                    if member.size:
                        yield from _members(file, path, member.offset_data, stop)
                elif member.isreg():
                    yield Member(member.name, member.offset_data, member.size)
                last = stop + -member.size % BLOCK if member.isreg() else member.offset_data
            _check_end(file, last, end)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(f"{path}, byte {last:,}: this tar is damaged there: {error}") from error


def _check_end(file: BinaryIO, place: int, end: int) -> None:
    """tarfile takes a damaged header for the end of the tar; only zeros are."""
    file.seek(place)
    block = file.read(max(0, min(BLOCK, end - place)))
    if block.strip(b"\0"):
        raise tarfile.ReadError("what follows is no header")
