"""A folder of pictures: a folder a class, or metadata.csv or .jsonl beside them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from mmnet.data.downloaded import SUFFIXES
from mmnet.data.own import TEST, TRAIN, VAL
from mmnet.data.records import Found, Record
from mmnet.data.tabular import Tabular
from mmnet.interfaces import Names


ENDINGS = (*SUFFIXES, ".bmp", ".tif", ".tiff", ".avif", ".jp2")
METADATA = ("metadata.csv", "metadata.jsonl")
SPLITS = {*TRAIN, *VAL, *TEST} - {""}


@dataclass
class Folder(Tabular):
    """Pictures of which the folders say the class: cat/1.jpg, or train/cat/1.jpg.

    Where metadata.csv or metadata.jsonl lies beside the pictures, or in each split's folder, it
    says what they are instead, as the hub's imagefolder has it: `file_name` and any of text,
    label, labels. Files that are no pictures are left out and counted.

    caption, label: columns of the metadata; None: found by their usual names.

    Raises UserError where metadata is malformed, naming file and line.
    """

    caption: str | None
    label: str | None

    title: ClassVar[str] = "folder"
    layouts: ClassVar[list[list[str]]] = [
        *([name] for name in METADATA),
        *([f"train/{name}"] for name in METADATA),
        ["train/*/*.*"],
        ["*/*.*"],
    ]

    @classmethod
    def accepts(cls, folder: Path) -> bool:
        if _metadata(folder):
            return True
        # Of a folder a class: pictures in it, and no other kind of set around it.
        return any(_pictures(path) for path in folder.iterdir() if path.is_dir()) or any(
            _pictures(path) for path in folder.glob("train/*") if path.is_dir()
        )

    def tables(self) -> list[Path]:
        return _metadata(self.folder)

    def asked(self) -> dict[str, str | None]:
        return {"caption": self.caption, "label": self.label}

    def sources(self) -> list[Path]:
        return self.tables() or [Path(path) for path, _, _ in os.walk(self.folder)]

    def missing(self, target: str) -> str:
        return f"metadata.csv may say it, in a column called {target}"

    def records(self, found: Found) -> Iterator[Record]:
        yield from super().records(found) if self.tables() else self._by_class(found)

    def _by_class(self, found: Found) -> Iterator[Record]:
        places = [PurePosixPath(place) for place in self._files_below(found)]
        splits = {place.parts[0] for place in places if self._is_split(place)}
        inner = [place.parts[place.parts[0] in splits :] for place in places]
        classes = sorted({parts[0] for parts in inner if len(parts) > 1})
        numbers = {name: number for number, name in enumerate(classes)}
        found.names.append(Names(classes=classes))
        for place, parts in zip(places, inner, strict=True):
            if len(parts) == 1:
                found.notes["pictures in no class's folder"] += 1
                continue
            name = str(place)
            split = place.parts[0] if len(parts) < len(place.parts) else ""
            yield Record(name, name, split=split, group=name, label=numbers[parts[0]])

    def _is_split(self, place: PurePosixPath) -> bool:
        named = {*SPLITS, *(self.train_split or ()), *(self.val_split or ())}
        return len(place.parts) > 2 and place.parts[0] in named

    def _files_below(self, found: Found) -> Iterator[str]:
        for path, folders, files in os.walk(self.folder):
            folders.sort()
            for name in sorted(files):
                if name.lower().endswith(ENDINGS):
                    yield (Path(path) / name).relative_to(self.folder).as_posix()
                elif not name.startswith("."):
                    found.notes["files that are no pictures"] += 1


def _metadata(folder: Path) -> list[Path]:
    here = [folder / name for name in METADATA]
    below = (path for name in METADATA for path in folder.glob(f"*/{name}"))
    return [path for path in here if path.is_file()] or sorted(below)


def _pictures(folder: Path) -> bool:
    return any(path.name.lower().endswith(ENDINGS) for path in folder.iterdir())
