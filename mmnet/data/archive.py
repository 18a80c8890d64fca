"""Pictures that are in a zip archive: read from where they stand in it, nothing is unpacked."""

import errno
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from mmnet.errors import UserError


HEADER = struct.Struct("<4s22xHH")  # of a member; the lengths of its name and of what follows it
LARGEST = 256 * 2**20  # bytes of a member, unpacked
ENCRYPTED = 1  # bit of a member's flags


class Member(NamedTuple):
    """Where a file of an archive stands."""

    offset: int  # of its header
    packed: int  # bytes
    size: int  # bytes
    method: int
    crc: int


class Archive:
    """The members of a zip archive, by their paths in it.

    Its directory is read once; a member is then one seek away. No file is kept open and nothing
    is kept of a read, so that any number of workers, forked or not, may share one of these.

    Raises UserError where the file is no archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                listed = [info for info in archive.infolist() if not info.is_dir()]
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise UserError(f"{path}: {error}") from error
        self.members = {
            info.filename: Member(
                info.header_offset,
                info.compress_size,
                info.file_size,
                -1 if info.flag_bits & ENCRYPTED else info.compress_type,
                info.CRC,
            )
            for info in listed
        }

    def read(self, name: str) -> bytes:
        """All of a member. Raises FileNotFoundError for an unknown one, OSError for damage."""
        member = self.members.get(name)
        if member is None:
            raise FileNotFoundError(errno.ENOENT, "not in the archive", f"{self.path}:{name}")
        if member.size > LARGEST or member.packed > LARGEST:
            raise OSError(errno.EFBIG, "too large in the archive", f"{self.path}:{name}")
        with self.path.open("rb", buffering=0) as file:
            file.seek(member.offset)
            header = file.read(HEADER.size)
            if len(header) < HEADER.size or not header.startswith(b"PK\x03\x04"):
                raise _damaged(self.path, name)
            _, name_length, extra_length = HEADER.unpack(header)
            file.seek(member.offset + HEADER.size + name_length + extra_length)
            packed = file.read(member.packed)
        content = _unpacked(packed, member)
        if content is None or len(content) != member.size or zlib.crc32(content) != member.crc:
            raise _damaged(self.path, name)
        return content


def _unpacked(packed: bytes, member: Member) -> bytes | None:
    """None: damaged, encrypted, or packed in a way that pictures are not."""
    if member.method == zipfile.ZIP_STORED:
        return packed
    if member.method != zipfile.ZIP_DEFLATED:
        return None
    try:
        # One byte more than it says, so that a longer one is noticed and yet costs nothing.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.size + 1)
    except zlib.error:
        return None


def _damaged(path: Path, name: str) -> OSError:
    return OSError(errno.EIO, "damaged in the archive", f"{path}:{name}")
