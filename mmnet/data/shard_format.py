"""The shards that `prepare` writes and dataset=webdataset reads: the format, both halves.

A folder of tar files that any tool reads, named by what a sample is for, train-000000.tar and so
on. A sample is `<key>.jpg` (.png, .webp, ...: the picture, the bytes as they were) and
`<key>.json` (Entry); the key is a number, and what the dataset calls the sample stands in the
JSON. Beside each shard lies its index with the checksum of every member (mmnet.data.tar_index),
and dataset.json (Card) says once what all of them share.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mmnet.data.files import read_json
from mmnet.data.records import Record
from mmnet.data.tar_index import Index, index_path, write_index
from mmnet.errors import UserError
from mmnet.interfaces import Names


CARD = "dataset.json"
VERSION = 1

# How files of each format begin, by the extension that they get.
MAGIC = (
    (0, b"\xff\xd8\xff", "jpg"),
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (8, b"WEBP", "webp"),
    (0, b"GIF8", "gif"),
    (0, b"BM", "bmp"),
    (0, b"II*\0", "tif"),
    (0, b"MM\0*", "tif"),
    (4, b"ftypavif", "avif"),
    (4, b"jP  ", "jp2"),
    (0, b"\xff\x4f\xff\x51", "jp2"),
)
UNKNOWN = "img"  # of a picture in no such format: it is kept, and bad when it is read
PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", UNKNOWN)


class Entry(msgspec.Struct, omit_defaults=True, gc=False):
    """`<key>.json`: a Record without its picture; the fields mean what they mean there."""

    key: str
    captions: tuple[str, ...] = ()
    split: str = ""
    group: str = ""
    label: int | None = None
    present: tuple[int, ...] | None = None
    absent: tuple[int, ...] | None = None
    value: float | None = None
    box: tuple[float, float, float, float] | None = None
    turn: int = 0


class Called(msgspec.Struct):
    """What the targets are called, see mmnet.interfaces.Names."""

    classes: list[str] = []
    labels: list[str] = []
    unit: str = ""


class Card(msgspec.Struct, kw_only=True):
    """`dataset.json`."""

    version: int = VERSION
    title: str  # of the dataset that was prepared
    digest: str  # of its table
    names: Called
    targets: list[str]  # what it offers, names of TARGETS
    # Of a label that an entry neither names nor denies; null: nobody knows.
    unsaid: float | None = 0.0
    # The splits that are trained on and evaluated ("train", "val"); empty: drawn by hash.
    roles: dict[str, list[str]] = {}
    notes: dict[str, int] = {}  # what was left out, and why
    shards: dict[str, int] = {}  # samples of each shard, by its name


class Prepared(NamedTuple):
    """One sample to be written."""

    record: Record
    picture: bytes | None  # the file as it is, or as it was made; None: the record has none


def shard_name(split: str, number: int) -> str:
    """`split` is a role (train, val) or a published split, as far as a file may be called so."""
    safe = "".join(letter if letter.isalnum() else "_" for letter in split) or "all"
    return f"{safe}-{number:06d}.tar"


def write_shard(path: Path, samples: Iterable[Prepared], first: int) -> Index:
    """Writes `path` and its index, whole or not at all; samples are numbered from `first`.

    The same samples make the same bytes. Raises OSError.
    """
    numbered = (
        {"__key__": f"{number:09d}", **_members(sample)}
        for number, sample in enumerate(samples, first)
    )
    write_tar(path, numbered)
    return write_index(path, checksums=True)


def write_tar(path: Path, samples: Iterable[dict[str, Any]]) -> None:
    """A tar of samples as webdataset has them, whole or not at all. Raises OSError."""
    from webdataset.writer import TarWriter  # costs a second, and reading does without

    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            # Neither who nor when: so that the same samples are the same file.
            with TarWriter(file, user="", group="", mtime=0, encoder=False) as writer:
                for sample in samples:
                    writer.write(sample)
            file.flush()
            os.fsync(file.fileno())
        index_path(path).unlink(missing_ok=True)  # of what stood here before
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_card(folder: Path, card: Card) -> None:
    """Writes `dataset.json`, which is to be done last: with it the folder is whole."""
    part = folder / f".{CARD}.{os.getpid()}"
    part.write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2))
    part.replace(folder / CARD)


def card_of(
    title: str,
    digest: str,
    names: Names,
    targets: Iterable[str],
    unsaid: float,
    roles: dict[str, list[str]],
    notes: dict[str, int],
    shards: dict[str, int],
) -> Card:
    """The card of a dataset: its table's digest and notes, what it offers, what was written."""
    called = Called(list(names.classes), list(names.labels), names.unit)
    known = None if unsaid != unsaid else unsaid  # JSON has no NaN
    return Card(
        title=title,
        digest=digest,
        names=called,
        targets=list(targets),
        unsaid=known,
        roles=roles,
        notes=notes,
        shards=shards,
    )


def read_card(folder: Path) -> Card | None:
    """What `dataset.json` says; None where there is none, or one of something else.

    Raises UserError where it is malformed or of another version.
    """
    path = folder / CARD
    if not path.is_file():
        return None
    told = read_json(path, dict[str, Any])
    if not {"version", "title", "digest", "names", "targets"} <= told.keys():
        return None
    if told["version"] != VERSION:
        raise UserError(f"{path}: version {told['version']}, this mmnet reads version {VERSION}")
    return read_json(path, Card)


def record_of(entry: Entry, image: str | None) -> Record:
    """The record that was written, with its picture where it is now."""
    return Record(image=image, **msgspec.structs.asdict(entry))


def extension_of(picture: bytes) -> str:
    """What a picture's bytes say it is, whatever its file was called."""
    return next((name for place, magic, name in MAGIC if picture.startswith(magic, place)), UNKNOWN)


def _members(sample: Prepared) -> dict[str, bytes]:
    told = sample.record._asdict()
    del told["image"]
    members = {"json": msgspec.json.encode(Entry(**told))}
    if sample.picture is not None:
        members[extension_of(sample.picture)] = sample.picture
    return members
