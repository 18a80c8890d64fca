"""What a dataset's files say of its samples, read once and then looked up by number.

A format's reader yields one Record after the other. They are written to an Arrow file in the
cache ($MMNET_CACHE, by default ~/.cache/mmnet), which is mapped into memory: a dataset of ten
million samples starts at once and takes no memory, and every data worker shares it. The file is
named by what was read (paths, sizes, times of the sources; settings; version of this format),
so that it is used again only for the same files.
"""

import bisect
import hashlib
import itertools
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from mmnet.data.held_out import hashed
from mmnet.interfaces import Names


VERSION = 2  # of the cache; to be raised when a reader reads the same files otherwise
BATCH = 10_000  # records written at once


class Record(NamedTuple):
    """One sample as its publisher describes it."""

    key: str  # what reports call it: an id, or a path below the root
    image: str | None = None  # where its picture is, a path below the root unless the reader says
    captions: tuple[str, ...] = ()  # as they stand in the files
    split: str = ""  # the published one; "": none is published
    group: str = ""  # samples that belong on one side of a split; "": it is alone
    label: int | None = None  # its class
    present: tuple[int, ...] | None = None  # labels that hold
    absent: tuple[int, ...] | None = None  # labels that are known not to hold
    value: float | None = None
    box: tuple[float, float, float, float] | None = None  # left, top, right, bottom in [0, 1]
    turn: int = 0  # quarter turns, counter-clockwise, that put it upright once the box is cut out


SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("image", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("split", pa.string()),
        ("group", pa.string()),
        ("label", pa.int32()),
        ("present", pa.list_(pa.int32())),
        ("absent", pa.list_(pa.int32())),
        ("value", pa.float64()),
        ("box", pa.list_(pa.float32(), 4)),
        ("turn", pa.int8()),
        ("hash", pa.uint64()),  # of the group
    ]
)


class Found(NamedTuple):
    """What there is to say of a dataset beside its records; filled while they are read."""

    notes: Counter[str]  # what was left out, and why
    names: list[Names]  # empty, or what the targets are called

    @classmethod
    def nothing(cls) -> "Found":
        return cls(Counter(), [])


class Table:
    """Records on disk by their number."""

    def __init__(self, path: Path, digest: str, notes: Mapping[str, int], names: Names) -> None:
        self.path, self.digest, self.notes, self.names = path, digest, dict(notes), names
        self._batches: list[pa.RecordBatch] = []
        self._columns: list[
            dict[str, pa.Array | None]
        ] = []  # of each batch; None: empty throughout
        self._starts = [0]
        self._open()

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, row: int) -> Record:
        columns, place = self._at(row)
        return Record(*(_value(columns[name], place) for name in Record._fields))

    def captions(self, row: int) -> Sequence[str]:
        columns, place = self._at(row)
        return _value(columns["captions"], place) or ()

    def key(self, row: int) -> str:
        columns, place = self._at(row)
        found: str = _value(columns["key"], place)
        return found

    def column(self, name: str) -> pa.ChunkedArray:
        """All of one field."""
        if not self._batches:
            return pa.chunked_array([], SCHEMA.field(name).type)
        return pa.chunked_array([batch.column(name) for batch in self._batches])

    def caption_starts(self) -> npt.NDArray[np.int64]:
        """Where each record's captions begin among all captions, and, at last, their number."""
        counts = pc.fill_null(pc.list_value_length(self.column("captions")), 0)
        return np.concatenate([[0], np.cumsum(counts.to_numpy(), dtype=np.int64)])

    def _at(self, row: int) -> tuple[dict[str, pa.Array | None], int]:
        number = bisect.bisect_right(self._starts, row) - 1
        return self._columns[number], row - self._starts[number]

    def _open(self) -> None:
        with pa.memory_map(str(self.path)) as file:
            reader = pa.ipc.open_file(file)
            self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._columns = [
            {
                name: None if column.null_count == len(column) else column
                for name, column in zip(SCHEMA.names, batch.columns, strict=True)
            }
            for batch in self._batches
        ]
        self._starts = [0, *itertools.accumulate(batch.num_rows for batch in self._batches)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_batches": [], "_columns": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


def _value(column: pa.Array | None, place: int) -> Any:
    if column is None:
        return None
    value = column[place].as_py()
    return tuple(value) if isinstance(value, list) else value


def table_of(
    name: str,
    read: Callable[[Found], Iterable[Record]],
    sources: Sequence[Path],
    settings: Mapping[str, Any],
) -> Table:
    """The records that `read` yields, from the cache where the same was read before.

    sources: the files and folders that they come from; a folder changes when a file is added to
    or removed from it. settings: what else they depend on. Raises what `read` raises.
    """
    key = _key(name, sources, settings)
    for folder in cache_folders():
        path = folder / f"{name}-{key}.arrow"
        if (table := _stored(path)) is not None:
            return table
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=folder, prefix=f".{name}-")
        except OSError:
            continue  # the next folder
        os.close(handle)
        try:
            _write(Path(part), path, read)
        finally:
            Path(part).unlink(missing_ok=True)
        found = _stored(path)
        assert found is not None, path
        return found
    raise OSError("neither the cache folder nor the temporary folder can be written")


def cache_folders() -> list[Path]:
    """Where tables are kept: the cache, or else where temporary files are."""
    own = os.environ.get("MMNET_CACHE")
    cache = Path(own) if own else Path.home() / ".cache" / "mmnet"
    return [cache, Path(tempfile.gettempdir()) / f"mmnet-{os.getuid()}"]


def mixed(hashes: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """Other hashes for another seed, as evenly spread (splitmix64, Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        z = hashes + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _key(name: str, sources: Sequence[Path], settings: Mapping[str, Any]) -> str:
    stats = [(str(path.resolve()), path.stat()) for path in sorted(sources)]
    seen = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    told = json.dumps([VERSION, name, seen, dict(settings)], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:20]


def _stored(path: Path) -> Table | None:
    """The table of `path`, if it is whole: its description is written last."""
    try:
        told = json.loads(path.with_suffix(".json").read_text("utf-8"))
        if path.stat().st_size != told["size"]:
            return None
        return Table(path, told["digest"], told["notes"], Names(**told["names"]))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None


def _write(part: Path, path: Path, read: Callable[[Found], Iterable[Record]]) -> None:
    found, digest = Found.nothing(), hashlib.sha256()
    with pa.OSFile(str(part), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        for rows in _batches(read(found), path.stem.rpartition("-")[0]):
            for row in rows:
                digest.update(ascii(tuple(row)).encode())  # a caption may hold half a surrogate
            hashes = [hashed(row.group or row.key) for row in rows]
            arrays = [
                _array(column, field.type)
                for column, field in zip((*zip(*rows, strict=True), hashes), SCHEMA, strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))
    names = found.names[-1] if found.names else Names()
    told = {
        "size": part.stat().st_size,
        "digest": digest.hexdigest(),
        "notes": {what: count for what, count in found.notes.items() if count},
        "names": names._asdict(),
    }
    part.replace(path)
    description = part.with_suffix(".json")
    description.write_text(json.dumps(told), "utf-8")
    description.replace(path.with_suffix(".json"))


def _batches(records: Iterable[Record], name: str) -> Iterator[list[Record]]:
    rows: list[Record] = []
    # Shown where it takes more than a moment, and where somebody looks.
    for record in tqdm(
        records, f"reading {name}", unit=" samples", delay=3, disable=None, leave=False
    ):
        rows.append(record)
        if len(rows) == BATCH:
            yield rows
            rows = []
    if rows:
        yield rows


def _array(column: Sequence[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(column, kind)
    except UnicodeEncodeError:  # so rare that it is not looked for
        return pa.array([_storable(value) for value in column], kind)


def _storable(value: Any) -> Any:
    """Halves of surrogate pairs, which JSON lets through, are no UTF-8: U+FFFD stands for them."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, tuple):
        return [_storable(one) for one in value]
    return value
