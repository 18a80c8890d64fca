"""Samples that stand in tables, a row each: a picture or its path, texts, a label, a split."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from mmnet.data.column_roles import class_names, holds_bytes, roles_of
from mmnet.data.embedded import pictures_of
from mmnet.data.files import inside
from mmnet.data.members import captions_of, number_of, strings_of
from mmnet.data.own import Classes, Own
from mmnet.data.places import Places, place_of
from mmnet.data.records import Found, Record
from mmnet.data.tables import columns_of, rows_of
from mmnet.errors import UserError, nearest
from mmnet.interfaces import Names


NEVER = -1  # how HF says that a label is not published
FOLDERS = ("", "images", "image", "imgs", "pictures", "photos", "data")  # below a table
PROBED = 20  # rows by which the folder of the pictures is found


class Row(NamedTuple):
    """What a row says, by role."""

    place: str  # table and number
    image: Any
    caption: Any
    label: Any
    labels: Any
    value: Any
    split: Any


@dataclass
class Tabular(Own):
    """Rows of one table or several. Rows of one picture, label and split are one sample."""

    def tables(self) -> list[Path]:
        """The files. Raises UserError."""
        raise NotImplementedError

    def asked(self) -> dict[str, str | None]:
        """The columns that settings name, by role."""
        raise NotImplementedError

    def pictures_in(self, table: Path) -> str | None:
        """The folder that paths are relative to; None: the one in which the first are."""
        return None

    def sources(self) -> list[Path]:
        return self.tables()

    def settings(self) -> dict[str, Any]:
        named = [*(self.train_split or ()), *(self.val_split or ())]
        return {**self.asked(), "splits": named, "num_classes": self.num_classes}

    def missing(self, target: str) -> str:
        return f"dataset.{target} names the column that says it"

    def picture(self, place: str) -> Path | bytes:
        if self._embedded:
            return self._files.read(place)
        return self.folder / place

    def records(self, found: Found) -> Iterator[Record]:
        tables = {path: roles_of(path, self.asked()) for path in self.tables()}
        self._check(tables)
        classes = self._classes(tables)
        labels = Classes(one for row in self._rows(tables, "labels") for one in strings_of(row))
        found.names.append(Names(classes=classes.names, labels=labels.names))
        again = self._met_again(tables)
        waiting: dict[tuple[Any, ...], Record] = {}
        before: Record | None = None
        for record in self._read(tables, classes, labels, found):
            same = (record.image, record.label, record.split)
            if record.image in again:
                waiting[same] = _joined(waiting.get(same), record)
            elif before and record.image and same == (before.image, before.label, before.split):
                before = _joined(before, record)
            else:
                if before:
                    yield before
                before = record
        if before:
            yield before
        yield from waiting.values()

    # Which columns

    @cached_property
    def _embedded(self) -> bool:
        """Whether the pictures are in the tables."""
        return any(
            "image" in columns and holds_bytes(path, columns["image"])
            for path, columns in ((path, roles_of(path, self.asked())) for path in self.tables())
        )

    def _check(self, tables: dict[Path, dict[str, str]]) -> None:
        """Raises UserError where a setting names a column that no table has, or no column helps."""
        there = sorted({column for path in tables for column in columns_of(path)})
        for role, column in self.asked().items():
            if column is not None and column not in there:
                raise UserError(
                    f"dataset.{role}={column}: no such column in {self.folder}"
                    f"{nearest(column, there)}; there are {', '.join(there)}"
                )
        if not any({"image", "caption"} & columns.keys() for columns in tables.values()):
            raise UserError(
                f"{self.folder}: no column of {', '.join(path.name for path in tables)} is called "
                f"like one of pictures or texts; there are {', '.join(there)}. Name them with "
                f"dataset.image and dataset.caption"
            )

    # What they say

    def _rows(self, tables: dict[Path, dict[str, str]], role: str) -> Iterator[Any]:
        """All cells of one role."""
        for path, columns in tables.items():
            if role in columns:
                for _, (cell,) in rows_of(path, [columns[role]]):
                    if cell is not None and cell != "":
                        yield cell

    def _classes(self, tables: dict[Path, dict[str, str]]) -> Classes:
        for path, columns in tables.items():
            if "label" in columns and (names := class_names(path, columns["label"])):
                return Classes.named(names)
        return Classes(_scalar(cell) for cell in self._rows(tables, "label")).at_least(
            self.num_classes
        )

    def _met_again(self, tables: dict[Path, dict[str, str]]) -> set[str]:
        """Pictures whose rows are not side by side."""
        if self._embedded:
            return set()
        seen, again, before = set(), set(), None
        for path, columns in tables.items():
            if "image" in columns:
                base = self._base(path, columns["image"])
                for number, (cell,) in rows_of(path, [columns["image"]]):
                    place = self._place(cell, base, f"{path}, line {number}")
                    if place is None or place == before:
                        continue
                    before = place
                    short = hashlib.blake2b(os.fsencode(place), digest_size=8).digest()
                    if short in seen:
                        again.add(place)
                    seen.add(short)
        return again

    def _read(
        self,
        tables: dict[Path, dict[str, str]],
        classes: Classes,
        labels: Classes,
        found: Found,
    ) -> Iterator[Record]:
        pictured = any("image" in columns for columns in tables.values())
        for path, columns in tables.items():
            name = path.relative_to(self.folder).as_posix()
            for row, image in self._with_pictures(path, name, columns):
                captions = captions_of(row.caption)
                if image is None and (pictured or not captions):
                    found.notes[f"rows without a {'picture' if pictured else 'text'}"] += 1
                    continue
                if "caption" in columns and not captions:
                    found.notes["rows without a text"] += 1
                label = None if row.label in (None, "", NEVER) else classes(_scalar(row.label))
                if "label" in columns and label is None:
                    found.notes["rows without a label"] += 1
                places = (labels(one) for one in strings_of(row.labels))
                yield Record(
                    key=row.place,
                    image=image,
                    captions=captions,
                    split=str(row.split).strip() if row.split else self.named_split(name),
                    group=self._group(row, image, captions),
                    label=label,
                    present=(
                        tuple(sorted({one for one in places if one is not None}))
                        if "labels" in columns
                        else None
                    ),
                    value=number_of(row.value),
                )

    def _with_pictures(
        self, path: Path, name: str, columns: dict[str, str]
    ) -> Iterator[tuple[Row, str | None]]:
        """Each row, and where its picture is."""
        roles = [role for role in Row._fields[1:] if role in columns]
        embedded = "image" in columns and holds_bytes(path, columns["image"])
        pictures = _numbered(path, columns["image"]) if embedded else iter(())
        base = None if embedded or "image" not in columns else self._base(path, columns["image"])
        waiting = next(pictures, None)
        wanted = [role for role in roles if not (embedded and role == "image")]
        for number, cells in rows_of(path, [columns[role] for role in wanted]):
            row = Row(f"{name}:{number}", *[None] * 6)._replace(
                **dict(zip(wanted, cells, strict=True))
            )
            place = None
            if embedded and waiting is not None and waiting[0] == number:
                place = place_of(name, *waiting[1:])
                waiting = next(pictures, None)
            elif base is not None:
                place = self._place(row.image, base, f"{path}, line {number}")
            yield row, place

    def _base(self, path: Path, column: str) -> str:
        """The folder of the pictures that a table names, from the root."""
        asked = self.pictures_in(path)
        if asked is not None:
            return asked
        own = path.parent.relative_to(self.folder).as_posix()
        names = []
        for _, (cell,) in rows_of(path, [column]):
            if isinstance(cell, str) and inside(cell):
                names.append(cell)
            if len(names) == PROBED:
                break
        folders = [f"{own}/{folder}".removeprefix("./").rstrip("/") or "." for folder in FOLDERS]
        return max(
            folders, key=lambda base: sum(_is_file(self.folder / base / name) for name in names)
        )

    def _place(self, cell: Any, base: str, where: str) -> str | None:
        """A path in a table, from the root. Raises UserError where it leads out of `base`."""
        if isinstance(cell, dict):  # a struct whose bytes are left out
            cell = cell.get("path")
        if not isinstance(cell, str) or not cell.strip() or "://" in cell:
            return None
        name = cell.strip().replace("\\", "/")
        own = (self.folder / base).absolute().as_posix()
        name = name.removeprefix(f"{own}/").removeprefix("./")
        if not inside(name) or "\0" in name:
            raise UserError(
                f"{where}: {cell!r} leads out of {own}, the folder of the pictures; another one is "
                f"named by dataset.images"
            )
        return name if base == "." else f"{base}/{name}"

    @staticmethod
    def _group(row: Row, image: str | None, captions: tuple[str, ...]) -> str:
        """What stays the same when rows are added: samples of one are on one side of a split."""
        if image is not None and image.count(":") < 3:
            return image
        return row.place if image is not None else captions[0]

    @cached_property
    def _files(self) -> Places:
        return Places(self.folder, self._unpacked)

    def _unpacked(self, path: Path) -> Path:
        return pictures_of(path, roles_of(path, self.asked())["image"]).shard


def _joined(first: Record | None, second: Record) -> Record:
    """Two rows of one picture as one sample, whose texts are told apart."""
    if first is None:
        return second
    return first._replace(captions=tuple(dict.fromkeys((*first.captions, *second.captions))))


def _numbered(path: Path, column: str) -> Iterator[tuple[int, int, int, int | None]]:
    """Row, offset, size and checksum of each picture of a table."""
    for key, (member, *_) in pictures_of(path, column).samples():
        yield int(key), *member[1:]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _scalar(cell: Any) -> Any:
    return cell.strip() if isinstance(cell, str) else str(cell) if isinstance(cell, list) else cell
