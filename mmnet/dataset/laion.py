"""LAION (Schuhmann et al., arXiv 2111.02114, 2210.08402): pictures and texts of web pages."""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from mmnet.data.downloaded import Downloaded, folders_of
from mmnet.data.embedded import pictures_of
from mmnet.data.files import read_json
from mmnet.data.members import Members, Unreadable, captions_of
from mmnet.data.places import Places, place_of
from mmnet.data.published import Drawn, Pictures
from mmnet.data.records import Found, Record
from mmnet.data.shard_format import PICTURES
from mmnet.data.tables import columns_of, rows_of
from mmnet.data.tar_index import Member, index_of, unpacked
from mmnet.errors import UserError


# What columns are called in one edition or another, in lower case.
URL = ("url", "image_url")
TEXT = ("caption", "text", "top_caption", "txt", "alt_text")
FOLDERS = ("images", ".")  # in which pictures are looked for, beside metadata
TARS, FILES, PARQUET, METADATA = range(4)  # layouts


class Stats(msgspec.Struct):
    """What is read of `00000_stats.json`, which img2dataset writes when a shard is whole."""

    count: int
    successes: int
    failed_to_download: int = 0
    failed_to_resize: int = 0


@dataclass
class Laion(Drawn, Pictures):
    """Pictures with the texts that stood beside them, as far as they were downloaded.

    Reads what img2dataset writes: tars, folders of files, or Parquet with the pictures inside;
    of a shard without `_stats.json`, which was not finished, what is whole. Or the metadata
    themselves (Parquet with URL and TEXT, in any case), with pictures in images/ or beside them,
    named by the number of the row or the MD5 of the address. Addresses without a picture are
    left out and counted; a sample without a text is a picture alone.

    Raises UserError where a finished shard is damaged, naming it and the byte.
    """

    title: ClassVar[str] = "laion"
    layouts: ClassVar[list[list[str]]] = [
        ["[0-9]*.tar"],
        ["[0-9]*/*.json", "[0-9]*.parquet"],
        ["[0-9]*.parquet", "[0-9]*_stats.json"],
        ["*.parquet"],
    ]
    offers: ClassVar[tuple[str, ...]] = ("group", "match")
    remedy: ClassVar[str] = (
        "; img2dataset downloads the pictures, dataset.val_fraction says how many are for val"
    )

    @classmethod
    def accepts(cls, folder: Path) -> bool:
        if any(folder.glob("[0-9]*.tar")) or any(folder.glob("*_stats.json")):
            return True
        first = min(folder.glob("*.parquet"))
        try:
            named = {column.lower() for column in columns_of(first)}
        except UserError:
            return True  # so that its fault is named
        return bool(named & set(URL)) and bool(named & set(TEXT))

    def sources(self) -> list[Path]:
        stats = sorted(self.folder.glob("*_stats.json"))
        if self.layout == METADATA:
            return [*self._shards(), *folders_of(self.folder, FOLDERS)]
        return [*self._shards(), *stats]

    def picture(self, place: str) -> Path | bytes:
        if self.layout in (TARS, PARQUET):
            return self._files.read(place)
        return super().picture(place)

    def records(self, found: Found) -> Iterator[Record]:
        first = 0
        for path in self._shards():
            if self.layout == METADATA:
                first += yield from self._metadata(path, first, found)
                continue
            stats = self._stats(path)
            if stats is None:
                found.notes["shards without _stats.json, which were not finished"] += 1
            else:
                found.notes["addresses that were not downloaded"] += stats.failed_to_download
                found.notes["pictures that were not resized"] += stats.failed_to_resize
            read = {TARS: self._tar, FILES: self._folder, PARQUET: self._parquet}[self.layout]
            read_so_far = 0
            for record in read(path, stats, found):
                read_so_far += 1
                if not record.captions:
                    found.notes["samples without a text"] += 1
                yield record
            if stats is not None and read_so_far < stats.successes:
                lost = stats.successes - read_so_far
                found.notes["samples fewer than _stats.json has successes"] += lost

    def _shards(self) -> list[Path]:
        if self.layout == TARS:
            return sorted(self.folder.glob("[0-9]*.tar"))
        if self.layout == FILES:
            return sorted(path for path in self.folder.glob("[0-9]*") if path.is_dir())
        return sorted(self.folder.glob("*.parquet"))

    def _stats(self, shard: Path) -> Stats | None:
        path = shard.with_name(f"{shard.name.partition('.')[0]}_stats.json")
        return read_json(path, Stats) if path.is_file() else None

    # img2dataset's outputs

    def _tar(self, path: Path, stats: Stats | None, found: Found) -> Iterator[Record]:
        try:
            index = index_of(path)
        except UserError:
            if stats is not None:
                raise
            found.notes["shards that end in the middle, left out"] += 1
            return
        found.notes.update(index.notes)
        for key, several in index.samples():
            members = Members(several, partial(self._member, path.name))
            picture = members.picture()
            if picture is None:
                found.notes["samples without a picture"] += 1
                continue
            try:
                told = members.value(("json.url",)), members.value(("json.caption", "txt"))
            except Unreadable as problem:
                found.notes[f"samples with {problem}"] += 1
                continue
            place = place_of(path.name, *picture[1:])
            yield _record(f"{path.name}/{key}", place, *told)

    def _member(self, name: str, member: Member) -> bytes:
        return self._files.read(place_of(name, *member[1:]))

    def _folder(self, path: Path, stats: Stats | None, found: Found) -> Iterator[Record]:
        there = sorted(one.name for one in path.iterdir())
        pictures = {name.partition(".")[0]: name for name in there if _is_picture(name)}
        texts = {name.partition(".")[0]: name for name in there if name.endswith(".txt")}
        told = {name.partition(".")[0] for name in there if name.endswith(".json")}
        for key, name in pictures.items():
            said: Mapping[str, Any] = {}
            if key in told:
                try:
                    said = msgspec.json.decode((path / f"{key}.json").read_bytes(), type=dict)
                except (msgspec.MsgspecError, RecursionError):
                    found.notes["samples with json that is malformed"] += 1
                    continue
            caption = said.get("caption")
            if caption is None and key in texts:
                caption = (path / texts[key]).read_text("utf-8", "replace")
            place = f"{path.name}/{name}"
            yield _record(place, place, said.get("url"), caption)
        for key in sorted(told - pictures.keys()):
            found.notes["samples without a picture"] += bool(key)

    def _parquet(self, path: Path, stats: Stats | None, found: Found) -> Iterator[Record]:
        column = self._column_of(path)
        pictures = iter(pictures_of(path, column).samples())
        waiting = next(pictures, None)
        for number, (url, caption, key) in self._rows(path, ("key",)):
            if waiting is None or int(waiting[0]) != number:
                if stats is None:
                    found.notes["addresses without a picture"] += 1
                continue
            place = place_of(path.name, *waiting[1][0][1:])
            waiting = next(pictures, None)
            yield _record(f"{path.name}/{key or number}", place, url, caption)

    # Metadata

    def _metadata(self, path: Path, first: int, found: Found) -> Generator[Record, None, int]:
        """Numbers the rows from `first`; returns how many there are."""
        number = 0
        for number, (url, caption) in self._rows(path, ()):
            place = None
            if isinstance(url, str):
                place = self._downloaded.find(first + number - 1, url)
            if place is None:
                found.notes["addresses without a picture"] += 1
                continue
            record = _record(str(url), place, url, caption)
            if not record.captions:
                found.notes["samples without a text"] += 1
            yield record
        return number

    def _rows(self, path: Path, more: tuple[str, ...]) -> Iterator[tuple[int, tuple[Any, ...]]]:
        there = {column.lower(): column for column in columns_of(path)}
        chosen = []
        for role in (URL, TEXT):
            named = [there[name] for name in role if name in there]
            if not named:
                raise UserError(
                    f"{path}: no column called {' or '.join(role)}, in any case; there are "
                    f"{', '.join(there.values())}"
                )
            chosen.append(named[0])
        extra = [there[name] for name in more if name in there]
        for number, row in rows_of(path, [*chosen, *extra]):
            yield number, (*row, *[None] * (len(more) - len(extra)))

    @cached_property
    def _downloaded(self) -> Downloaded:
        return Downloaded(self.folder, FOLDERS, by=("row", "md5"))

    @cached_property
    def _files(self) -> Places:
        return Places(self.folder, self._unpacked)

    def _unpacked(self, path: Path) -> Path:
        if path.suffix == ".parquet":
            return pictures_of(path, self._column_of(path)).shard
        return unpacked(path)

    def _column_of(self, path: Path) -> str:
        """The column of pictures, which is called as their files would be."""
        there = columns_of(path)
        found = next((name for name in PICTURES if name in there), None)
        if found is None:
            raise UserError(
                f"{path}: no column of pictures, such as jpg; there are {', '.join(there)}"
            )
        return found


def _record(key: str, place: str, url: Any, caption: Any) -> Record:
    return Record(
        key=key,
        image=place,
        captions=captions_of(caption),
        group=url if isinstance(url, str) else "",
    )


def _is_picture(name: str) -> bool:
    return name.rpartition(".")[2].lower() in PICTURES
