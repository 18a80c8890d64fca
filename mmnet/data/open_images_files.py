"""Open Images' files across its versions: which there are, classes, pictures, rotations."""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mmnet.data.csv_rows import number, opened, read_rows
from mmnet.data.text import told_apart
from mmnet.errors import UserError


SPLITS = ("train", "validation", "test")
# What the files are called, from V1 to V7 and in the trees of other programs.
KINDS = {
    "human": re.compile(r"human-imagelabels|annotations-human\.csv|classifications\.csv"),
    "machine": re.compile(r"machine-imagelabels|annotations-machine\.csv"),
    "boxes": re.compile(r"annotations-(human-)?bbox|detections\.csv"),
    "images": re.compile(r"images?[-_].*rotation|^images\.csv|image_ids\.csv"),
    "classes": re.compile(r"class-descriptions|^dict\.csv|^classes\.csv"),
    "narratives": re.compile(r"localized_narratives.*\.jsonl$"),
}
SPLIT = re.compile(r"(?:^|[^a-z])(train|validation|val|test)(?:[^a-z]|$)")
# Below the root, where a split's pictures are looked for; train_0 to train_f are its archives.
OF_A_SPLIT = ("{}", "images/{}", "data/{}", "{}/data", "{}/images", "{}_[0-9a-f]")
FLAT = (".", "images", "data")
SUFFIXES = (".jpg", ".jpeg", ".png")


class Files:
    """The tables below a root, told by their names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found: dict[str, list[Path]] = {kind: [] for kind in KINDS}
        for path in _tables(root):
            for kind, name in KINDS.items():
                if name.search(path.name):
                    self.found[kind].append(path)
                    break

    def of(self, kind: str) -> list[tuple[str, Path]]:
        """(split, path) of each table of a kind; "" where a name says no split."""
        return [(self.split_of(path), path) for path in self.found[kind]]

    def split_of(self, path: Path) -> str:
        parts = path.relative_to(self.root).parts
        for part in reversed(parts):
            if found := SPLIT.search(part):
                return "validation" if found[1] == "val" else found[1]
        return ""

    def classes(self, which: str | None) -> dict[str, str]:
        """Names by machine id, in the order of the file: the boxable ones, all, or what is there.

        Raises UserError.
        """
        boxable = [path for path in self.found["classes"] if "boxable" in path.name]
        others = [path for path in self.found["classes"] if "boxable" not in path.name]
        asked = {"boxable": boxable, "all": others, None: boxable or others}[which]
        if not asked:
            key = f"dataset.classes={which or 'null'}"
            name = "class-descriptions-boxable.csv" if which == "boxable" else "class-descriptions"
            raise UserError(f"{key}: {self.root} holds no *{name}*, which says what they are")
        return read_classes(max(asked, key=lambda path: path.name))  # oidv7 after those before it


def read_classes(path: Path) -> dict[str, str]:
    """Names by machine id, with a header (V6, V7) or without. Raises UserError."""
    found: dict[str, str] = {}
    try:
        with opened(path) as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if not row or (reader.line_num == 1 and not row[0].startswith("/")):
                    continue
                if len(row) != 2 or not row[0].startswith("/") or row[0] in found:
                    raise UserError(
                        f"{path}, line {reader.line_num}: {','.join(row)[:60]!r} is no class and "
                        f"its name, such as /m/025dyy,Box, or stands there already"
                    )
                found[row[0]] = row[1]
    except (OSError, csv.Error) as error:
        raise UserError(f"{path}: {error}") from error
    return dict(zip(found, told_apart(found), strict=True))


class Here:
    """The pictures that are below a root, by split and id."""

    def __init__(self, root: Path) -> None:
        self.folders: list[Path] = []
        self._root = root
        self._kinds: list[tuple[str, str]] = []  # folder and suffix, which many share
        self._found: dict[str, dict[str, int]] = {}
        for split in SPLITS:
            spelt = [split, "val"] if split == "validation" else [split]
            for name in spelt:
                for pattern in OF_A_SPLIT:
                    for folder in sorted(root.glob(pattern.format(name))):
                        self._add(folder, split)
        for place in FLAT:
            if (root / place).is_dir():
                self._add(root / place, "")

    def find(self, image_id: str, split: str) -> str | None:
        """Its path below the root; None if it is not here."""
        for one in (split, "") if split else ("", *SPLITS):
            kind = self._found.get(one, {}).get(image_id)
            if kind is not None:
                folder, suffix = self._kinds[kind]
                return f"{folder}/{image_id}{suffix}" if folder != "." else f"{image_id}{suffix}"
        return None

    def _add(self, folder: Path, split: str) -> None:
        place = folder.relative_to(self._root).as_posix()
        numbers: dict[str, int] = {}
        found = self._found.setdefault(split, {})
        for entry in os.scandir(folder):
            stem, dot, end = entry.name.rpartition(".")
            suffix = dot + end
            if suffix.lower() not in SUFFIXES:
                continue
            if suffix not in numbers:
                numbers[suffix] = len(self._kinds)
                self._kinds.append((place, suffix))
            found[stem] = numbers[suffix]
        if numbers:
            self.folders.append(folder)


def turns(files: Files) -> dict[str, int]:
    """Quarter turns, counter-clockwise, of the pictures that need some. Raises UserError."""
    found = {}
    for path in files.found["images"]:
        # Some copies have rows that end before the last field.
        columns = ("ImageID", "Rotation")
        if "rotation" not in path.name:
            continue  # V1 to V3 say nothing of it
        for line, (image_id, rotation) in read_rows(path, columns, absent=""):
            if rotation.lower() in ("", "nan"):
                continue
            degrees = number(rotation, path, line, "Rotation")
            if degrees not in (0, 90, 180, 270):
                raise UserError(f"{path}, line {line}: Rotation {rotation}, expected 0, 90, ...")
            if degrees:
                found[image_id] = int(degrees) // 90
    return found


def _tables(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            if name.endswith((".csv", ".jsonl")):
                yield Path(folder) / name
        if len(Path(folder).relative_to(root).parts) >= 2:
            folders.clear()
