"""Tar shards read from their beginning: from a pipe, an object store, the web, or a disk."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import fsspec
from braceexpand import braceexpand
from webdataset.gopen import gopen_pipe
from webdataset.tariterators import group_by_keys, tar_file_iterator

from mmnet.errors import UserError, first_line


# Where data may come from. Others of fsspec's are other things: a shell, a zip in a zip, GitHub.
SCHEMES = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss", "hdfs", "hf")
AT_ONCE = 1 << 20  # bytes


class Grouped(NamedTuple):
    """The members of one sample of a shard."""

    key: str  # the shard and the path in it up to the first dot
    parts: dict[str, bytes]  # by what follows that dot


def addresses(patterns: str | list[str], folder: Path, key: str, allow_pipes: bool) -> list[str]:
    """Every shard that patterns with {000..007} name; paths begin at `folder`.

    Raises UserError for a place that is not among those that data may come from.
    """
    found = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        try:
            expanded = list(braceexpand(pattern))
        except ValueError as error:  # braces without their other half
            raise UserError(f"{key}={pattern}: {error}") from error
        for one in expanded:
            scheme = re.match(r"([A-Za-z][\w+.-]*):", one)
            if scheme is None:
                found.append(str(folder / one))
                continue
            if scheme[1] == "pipe" and not allow_pipes:
                raise UserError(
                    f"{key}={one}: this would run a command; if that is meant, set "
                    f"dataset.allow_pipes=true"
                )
            known = scheme[1] == "pipe" or (scheme[1] in SCHEMES and "::" not in one)
            if not known or (scheme[1] != "pipe" and "://" not in one):
                schemes = ", ".join(SCHEMES)
                raise UserError(f"{key}={one}: expected a path, or <scheme>://, one of {schemes}")
            found.append(one)
    if not found:
        raise UserError(f"{key}: names no shard")
    return found


def samples_of(shards: list[str]) -> Iterator[Grouped]:
    """The samples of one shard after the other, undecoded.

    Only plain files count. Raises UserError where a shard cannot be opened, breaks off, or goes
    on where it seems to end, as one with a damaged header does.
    """
    for shard in shards:
        count = 0
        try:
            with closing(_opened(shard)) as file:
                for sample in _of_shard(shard, file):
                    count += 1
                    yield sample
        # tarfile, fsspec's file systems and the libraries below them raise what they like.
        except Exception as error:
            said = first_line(error).partition(" @ ")[0] or type(error).__name__
            raise UserError(f"{shard}, behind sample {count}: {said}") from error


def _opened(shard: str) -> BinaryIO:
    if shard.startswith("pipe:"):
        return cast(BinaryIO, gopen_pipe(shard, "rb", AT_ONCE))
    if "://" not in shard:
        return Path(shard).open("rb")
    return cast(BinaryIO, fsspec.open(shard, "rb").open())


def _of_shard(shard: str, file: BinaryIO) -> Iterator[Grouped]:
    watched = Watched(file)
    files = ({**one, "__url__": shard} for one in tar_file_iterator(watched))
    for sample in group_by_keys(files, lcase=True):
        key = f"{shard}/{sample['__key__']}"
        yield Grouped(key, {name: one for name, one in sample.items() if isinstance(one, bytes)})
    watched.check_end()


class Watched:
    """A file that tells whether more than zeros follows what was read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = b""

    def read(self, size: int = -1) -> bytes:
        found = self._file.read(size)
        if len(self._start) < 512:
            self._start += found[: 512 - len(self._start)]
        return found

    def check_end(self) -> None:
        """Raises ValueError for a tar that ends before its file does.

        Python's tarfile takes a damaged header for the end, without a word. A packed tar is not
        looked at: what follows the end of it is packed zeros.
        """
        plain = self._start[257:262] == b"ustar"
        while more := self._file.read(AT_ONCE):
            if plain and more.strip(b"\0"):
                raise ValueError("the archive seems to end, but more follows: a damaged header?")
