"""Parts of large files, by memory map: no call to the system for what is in memory already."""

import errno
import mmap
import zlib
from pathlib import Path
from typing import Any

from mmnet.data.tar_index import unpacked


MOST = 128  # files mapped at once; each costs a file descriptor


class Mapped:
    """The members of some shards, by place; for one process and those that are forked from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, mmap.mmap] = {}  # the last one used is the last

    def read(self, place: str) -> bytes:
        """What lies at a `place`. Raises OSError, also where a checksum says that it changed."""
        name, offset, size, crc32 = parsed(place)
        file = self._files.pop(name, None) or self._map(name)
        self._files[name] = file
        # A file that has become shorter ends the process, if it is read beyond its end.
        if offset + size > file.size():
            raise OSError(errno.EIO, "the shard has become shorter")
        content = file[offset : offset + size]
        if crc32 is not None and zlib.crc32(content) != crc32:
            raise OSError(errno.EIO, "not the bytes of which the index has the checksum")
        return content

    def _map(self, name: str) -> mmap.mmap:
        while len(self._files) >= MOST:
            self._files.pop(next(iter(self._files))).close()
        with unpacked(self.folder / name).open("rb") as file:
            try:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:  # it is empty
                raise OSError(errno.EIO, "the shard has become empty") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}


def place_of(name: str, offset: int, size: int, crc32: int | None) -> str:
    """A member of the shard `name`, a path below the folder, as one string."""
    return f"{name}:{offset}:{size}:{'' if crc32 is None else f'{crc32:x}'}"


def parsed(place: str) -> tuple[str, int, int, int | None]:
    """Name, offset, size and checksum of a place."""
    name, offset, size, crc32 = place.rsplit(":", 3)
    return name, int(offset), int(size), int(crc32, 16) if crc32 else None
