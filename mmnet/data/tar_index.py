"""Where each sample lies in a tar shard, so that any of them is read at once.

The index of `train-000000.tar` is an Arrow file, `train-000000.tar.index` beside it, or in the
cache where nothing may be written there; it is mapped, and takes no memory. A row is a member:

    key        path up to the first dot of its last part, as webdataset has it
    extension  what follows that dot, in lower case
    offset     of its content in the shard, bytes
    size       bytes
    crc32      of its content; null where nobody asked

Members of one sample are side by side, in the order in which the shard first names the sample,
wherever they lie. Pickles are no members: nothing here could read them without running them.

An index belongs to one size and time of change of its shard. Of a shard that was only copied it
is kept, after the headers were walked again and agree with it.
"""

import gzip
import hashlib
import json
import mmap
import os
import re
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa

from mmnet.data.records import cache_folders
from mmnet.data.tar import packed_as, walk
from mmnet.errors import UserError, reason


VERSION = 1
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("extension", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("crc32", pa.uint32()),
    ]
)
BATCH = 10_000  # rows handed out at once
NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)  # key and extension, as webdataset's
RESERVED = re.compile(r"__[^/]*__($|/)")  # what webdataset keeps for itself
PICKLES = {"pyd", "pkl", "pickle", "pth", "pt", "ckpt", "joblib", "dill"}
MOST = 100  # times its own size that a compressed shard may grow to


class Member(NamedTuple):
    """One file of a sample."""

    extension: str
    offset: int
    size: int
    crc32: int | None


class Index(NamedTuple):
    """The members of one shard."""

    shard: Path  # in which the offsets are: the shard, or what was unpacked of it
    notes: dict[str, int]  # what was left out, and why
    num_samples: int
    table: pa.Table  # mapped

    def samples(self) -> Iterator[tuple[str, list[Member]]]:
        """(key, its members in the order of the shard) of each sample."""
        before, members = None, list[Member]()
        for batch in self.table.to_batches(max_chunksize=BATCH):
            columns = (batch.column(number).to_pylist() for number in range(len(SCHEMA)))
            for key, *rest in zip(*columns, strict=True):
                if key != before and before is not None:
                    yield before, members
                    members = []
                before = key
                members.append(Member(*rest))
        if before is not None:
            yield before, members


def index_path(shard: Path) -> Path:
    """Where the index of a shard is, if it may be there."""
    return shard.with_name(f"{shard.name}.index")


def index_of(shard: Path) -> Index:
    """The index of a shard, made and kept where there is none yet.

    A shard that is compressed with gzip is unpacked into the cache first. Raises UserError
    naming the shard and the byte where it is damaged, or the index that contradicts it.
    """
    try:
        shard = unpacked(shard)
        return _known(shard) or write_index(shard)
    except OSError as error:
        raise UserError(f"{shard}: {reason(error)}") from error


def write_index(shard: Path, checksums: bool = False) -> Index:
    """Walks a shard and writes its index beside it, or else in the cache.

    checksums: of every member's content, which has to be read for that. Raises UserError where
    the shard is damaged, OSError where it cannot be read.
    """
    stat = shard.stat()
    table, notes, count = _walked(shard, checksums)
    told = {
        "version": VERSION,
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "count": count,
        "notes": notes,
    }
    table = table.replace_schema_metadata({"mmnet": json.dumps(told)})
    for path in (index_path(shard), *_cached(shard, stat)):
        if (path == index_path(shard) or _folder(path.parent)) and _written(table, path):
            return Index(shard, notes, count, table)
    raise UserError(f"{shard}: neither its folder nor a cache folder can be written")


def unpacked(shard: Path) -> Path:
    """The shard, or what it is in the cache if it is compressed with gzip.

    Raises UserError where it is damaged or compressed otherwise, OSError.
    """
    with shard.open("rb") as file:
        packed = packed_as(file.read(8))
    if packed is None:
        return shard
    if packed != "gzip":
        raise UserError(f"{shard}: compressed with {packed}; tar and tar.gz can be read")
    stat = shard.stat()
    for path in _cached(shard, stat):
        path = path.with_suffix(".tar")
        if path.is_file():
            return path
        if not _folder(path.parent):
            continue
        part = path.with_suffix(f".{os.getpid()}")
        try:
            with gzip.open(shard) as source, part.open("wb") as file:
                while content := source.read(2**20):
                    file.write(content)
                    if file.tell() > MOST * stat.st_size:
                        raise UserError(f"{shard}: grows to more than {MOST} times its size")
            part.replace(path)
            return path
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{shard}: damaged or cut short: {error}") from error
        finally:
            part.unlink(missing_ok=True)
    raise UserError(f"{shard}: no cache folder can be written to unpack it in")


def _walked(shard: Path, checksums: bool) -> tuple[pa.Table, dict[str, int], int]:
    notes: Counter[str] = Counter()
    samples: dict[str, dict[str, Member]] = {}
    before = None
    with shard.open("rb") as file, _mapped(file) as data:
        for number, entry in enumerate(walk(shard, data)):
            if number % BATCH == BATCH - 1:
                data.madvise(mmap.MADV_DONTNEED)  # what was seen of a large shard may go
            if entry.kind:
                if entry.kind != "folders":
                    notes[entry.kind] += 1
                continue
            if (name := _named(entry.name, notes)) is None:
                continue
            key, extension = name
            members = samples.get(key)
            if members is None:
                members = samples[key] = {}
            elif key != before:
                notes["members apart from the rest of their sample"] += 1
            before = key
            if extension in members:
                notes["members of a name that was there before"] += 1
                continue
            crc = None
            if checksums:
                with memoryview(data) as view, view[entry.offset :][: entry.size] as content:
                    crc = zlib.crc32(content)
            members[extension] = Member(extension, entry.offset, entry.size, crc)
    rows = [(key, *member) for key, members in samples.items() for member in members.values()]
    columns = zip(*rows, strict=True) if rows else ([] for _ in SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.table(arrays, schema=SCHEMA), dict(notes), len(samples)


def _mapped(file: IO[bytes]) -> mmap.mmap:
    if os.fstat(file.fileno()).st_size == 0:
        raise UserError(f"{file.name}: empty, not even the two blocks of zeros of an empty tar")
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _named(name: str, notes: Counter[str]) -> tuple[str, str] | None:
    """Key and extension; None for what is no part of a sample."""
    match = NAME.fullmatch(name.removeprefix("./"))
    if RESERVED.match(name) or (match and match[2].startswith("__")):
        notes["members whose names webdataset reserves"] += 1
    elif match is None:
        notes["members without an extension"] += 1
    elif PICKLES & set(match[2].lower().split(".")):
        notes["pickles, which are never read"] += 1
    else:
        if name.startswith("/") or ".." in name.split("/"):
            notes["members whose names lead out of a folder (read as names)"] += 1
        return match[1], match[2].lower()
    return None


def _known(shard: Path) -> Index | None:
    """The index that is there already. Raises UserError where it contradicts the shard."""
    stat = shard.stat()
    beside = index_path(shard)
    for path in (beside, *_cached(shard, stat)):
        try:
            index, told = _read(path, shard)
        except OSError:
            continue  # none there, or none that may be read
        except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
            if path != beside:
                continue
            raise UserError(f"{path}: damaged ({error}); delete it to have it made anew") from error
        if (told["size"], told["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns):
            return index
        if path == beside:
            return _compared(index, shard, told["size"])
    return None


def _compared(index: Index, shard: Path, size: int) -> Index:
    """The index of a shard that has been touched since, if it is still true of it."""
    table, _, count = _walked(shard, checksums=False)
    columns = SCHEMA.names[:-1]
    if not table.select(columns).equals(index.table.select(columns)):
        raise UserError(
            f"{shard}: {count:,} samples in {shard.stat().st_size:,} bytes, but its index knows "
            f"{index.num_samples:,} in {size:,}, or others. If the shard was written anew, delete "
            f"{index_path(shard).name}"
        )
    return index


def _read(path: Path, shard: Path) -> tuple[Index, dict[str, Any]]:
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    told = json.loads((table.schema.metadata or {})[b"mmnet"])
    if told["version"] != VERSION or not table.schema.equals(SCHEMA):
        raise ValueError(f"not of version {VERSION}")
    table.validate(full=True)
    offset, size = (table.column(name).to_numpy() for name in ("offset", "size"))
    if len(table) and (min(offset.min(), size.min()) < 0 or np.max(offset + size) > told["size"]):
        raise ValueError("members beyond the end of the shard")
    return Index(shard, told["notes"], told["count"], table), told


def _cached(shard: Path, stat: os.stat_result) -> list[Path]:
    seen = json.dumps([VERSION, str(shard.resolve()), stat.st_size, stat.st_mtime_ns])
    name = hashlib.sha256(seen.encode()).hexdigest()[:20]
    return [folder / f"shard-{name}.index" for folder in cache_folders()]


def _written(table: pa.Table, path: Path) -> bool:
    """Whether it could be; whole or not at all."""
    try:
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
    except OSError:
        return False
    try:
        with pa.OSFile(part, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        Path(part).chmod(0o644)
        Path(part).replace(path)
    except OSError:
        return False
    finally:
        Path(part).unlink(missing_ok=True)
    return True


def _folder(path: Path) -> bool:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return True
