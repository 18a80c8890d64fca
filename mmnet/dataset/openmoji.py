"""OpenMoji (openmoji.org): emoji as pictures with their names, from the published files."""

import hashlib
import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from mmnet.bounds import PositiveInt, Share
from mmnet.data.files import read_csv
from mmnet.data.pairs import another, fits
from mmnet.data.published import Drawn, Pictures
from mmnet.data.records import Found, Record
from mmnet.data.text import clean_caption
from mmnet.errors import UserError, nearest
from mmnet.interfaces import Names, Sample


COLUMNS = ("hexcode", "group", "annotation", "tags")
HEXCODE = re.compile(r"[0-9A-Fa-f]+(-[0-9A-Fa-f]+)*")  # 1F44B-1F3FF
DEPTH = 2  # folders below the root in which pictures are looked for
DISTINCT = ("flag", "keycap")  # what follows their colon is no variant, but all that is shown
MAX_TAGS = 3


class Emoji(NamedTuple):
    """What the file says of one emoji."""

    hexcode: str
    annotation: str
    tags: tuple[str, ...]
    label: int  # of its group


@dataclass
class OpenMoji(Drawn, Pictures):
    """Pictures of emoji and their names (annotations); the label is the group, as a class.

    A name's stem is what stands before its colon: "waving hand: dark skin tone" is a variant
    of "waving hand", "woman: red hair" of "woman". Variants share a `group`; of flags and
    keycaps, whose stem says nothing, each has its own. A stem is val, by its hash, with all
    that it stands for (all flags are on one side, too), so that nothing that is evaluated has
    been seen in another colour. `match`: half of the texts are the name of an emoji of another
    group, each as likely as any other.

    The classes are the groups in the order of the file (openmoji.csv or data/openmoji.csv).
    Pictures are `<hexcode>.png` in `folders`, relative to the root; each folder adds a picture
    of every emoji that it has. None: of the folders with pictures of most emoji, the one in
    colour with the smallest pictures that are not below image_size, as far as names tell
    (color/72x72). Emoji without a picture are left out and counted.

    Training draws a random crop and, with `tag_probability`, says one to three of the emoji's
    tags after its name; evaluation takes the whole picture and the name. Pictures are never
    mirrored: some point left or right.

    Raises UserError when the files are malformed or disagree with num_classes.
    """

    title: ClassVar[str] = "openmoji"
    # The second is the published repository.
    layouts: ClassVar[list[list[str]]] = [["openmoji.csv"], ["data/openmoji.csv"]]
    offers: ClassVar[tuple[str, ...]] = ("label", "group", "match")
    mirrored: ClassVar[bool] = False

    folders: list[str] | None
    num_classes: PositiveInt
    tag_probability: Share

    def settings(self) -> dict[str, Any]:
        chosen = {"folders": self.folders, "image_size": self.image_size}
        return {**super().settings(), **chosen}

    def sources(self) -> list[Path]:
        return [self._path, *folders_below(self.folder)]

    def records(self, found: Found) -> Iterator[Record]:
        emoji, classes = read_emoji(self._path)
        found.names.append(Names(classes=classes))
        there = pictures_below(self.folder, {one.hexcode for one in emoji})
        folders = chosen_folders(there, self.folders, self.image_size or 0)
        if not folders:
            raise UserError(
                f"{self.folder} holds no pictures of its emoji, such as {emoji[0].hexcode}.png, "
                f"in itself or up to {DEPTH} folders below"
            )
        for one in emoji:
            files = [
                f"{name}/{one.hexcode}.png" for name in folders if one.hexcode in folders[name]
            ]
            if not files:
                found.notes["emoji without a picture"] += 1
            for file in files:
                yield Record(
                    key=file,
                    image=file,
                    captions=(one.annotation, *one.tags),
                    group=stem(one.annotation) or file,
                    label=one.label,
                )

    # Another class than others have: a group is not a sample here, and tags are no captions.
    def split(self, name: str, targets: tuple[str, ...]) -> "OpenMojiSplit":  # type: ignore[override]
        """The samples of "train" or "val", in the order of the file. Raises UserError."""
        super().split(name, targets)  # says so where there are none
        return OpenMojiSplit(self, self.rows(name), targets)

    @property
    def _path(self) -> Path:
        [part] = self.layouts[self.layout]
        return self.folder / part


class OpenMojiSplit:
    """Pictures with their emoji's names."""

    def __init__(
        self, dataset: OpenMoji, rows: npt.NDArray[np.int64], targets: tuple[str, ...]
    ) -> None:
        self._dataset, self._table, self._targets = dataset, dataset.table, targets
        self._rows = rows
        numbers: dict[str, int] = {}
        means = (meaning(self._table.captions(int(row))[0]) for row in rows)
        self._groups = [numbers.setdefault(one, len(numbers)) for one in means]
        told = hashlib.sha256(f"{self._table.digest} {targets}".encode())
        told.update(rows.tobytes())
        self.digest, self.notes = told.hexdigest(), self._table.notes

    def __len__(self) -> int:
        return len(self._rows)

    def key(self, index: int) -> str:
        return self._table.key(int(self._rows[index]))

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        record = self._table[int(self._rows[index])]
        named, sample = index, Sample()
        for target in self._targets:
            match target:
                case "label":
                    assert record.label is not None
                    sample["label"] = record.label
                case "group":
                    sample["group"] = self._groups[index]
                case "match":
                    named = self._named(index, rng)
                    sample["match"] = int(named == index)
        # Drawn whether it is asked for or not, so that crops do not depend on that.
        text = self._text(named, rng)
        if "text" in modalities:
            sample["text"] = clean_caption(text, record.key)
        if "image" in modalities:
            sample["image"] = self._dataset.view(
                record.key, record.key, record, rng, sample.get("text")
            )
        return sample

    def _named(self, index: int, rng: random.Random | None) -> int:
        """Whose name stands beside the picture: its own emoji, or one of another group."""
        if fits(index, rng):
            return index
        group = self._groups[index]
        other = another(index, len(self), rng, lambda i: self._groups[i] == group)
        return index if other is None else other

    def _text(self, index: int, rng: random.Random | None) -> str:
        """The name, and in training now and then some of the tags after it."""
        name, *tags = self._table.captions(int(self._rows[index]))
        if rng is None:
            return name
        told: list[str] = []
        if rng.random() < self._dataset.tag_probability and tags:
            told = rng.sample(tags, min(rng.randint(1, MAX_TAGS), len(tags)))
        return ", ".join([name, *told])


def stem(annotation: str) -> str:
    """What is before the colon of a name."""
    return annotation.partition(":")[0].strip().casefold()


def meaning(annotation: str) -> str:
    """What emoji share that a text cannot, or need not, tell apart."""
    first = stem(annotation)
    return annotation.strip().casefold() if first in DISTINCT else first


def read_emoji(path: Path) -> tuple[list[Emoji], list[str]]:
    """All rows and their groups in order. Raises UserError naming the line that is malformed."""
    emoji: dict[str, Emoji] = {}
    classes: dict[str, int] = {}
    for number, row in read_csv(path, COLUMNS):
        hexcode, group = row["hexcode"].strip(), row["group"].strip()
        if not HEXCODE.fullmatch(hexcode):
            raise UserError(
                f"{path}, line {number}: hexcode {hexcode!r}, expected code points such as "
                f"1F44B-1F3FF"
            )
        if hexcode in emoji:
            raise UserError(f"{path}, line {number}: hexcode {hexcode} is there a second time")
        if not group:
            raise UserError(f"{path}, line {number}: {hexcode} has no group")
        told = [*row["tags"].split(","), *row.get("openmoji_tags", "").split(",")]
        tags = dict.fromkeys(tag.strip() for tag in told if tag.strip())
        label = classes.setdefault(group, len(classes))
        emoji[hexcode] = Emoji(hexcode, row["annotation"], tuple(tags), label)
    if not emoji:
        raise UserError(f"{path}: a header and no emoji")
    return list(emoji.values()), list(classes)


def folders_below(root: Path) -> list[Path]:
    """The root and the folders in it, as deep as pictures are looked for."""
    found = []
    for path, folders, _ in os.walk(root, followlinks=True):
        found.append(Path(path))
        if len(Path(path).relative_to(root).parts) >= DEPTH:
            folders.clear()
    return found


def pictures_below(root: Path, hexcodes: set[str]) -> dict[str, set[str]]:
    """Folder relative to the root -> the hexcodes that it has a PNG of, where there are any."""
    found = {}
    for folder in folders_below(root):
        files = [path.name for path in folder.iterdir()]
        has = {file.removesuffix(".png") for file in files if file.endswith(".png")} & hexcodes
        if has:
            found[folder.relative_to(root).as_posix()] = has
    return found


def chosen_folders(
    found: dict[str, set[str]], names: list[str] | None, image_size: int
) -> dict[str, set[str]]:
    """Those that are named, else the best one. Raises UserError for a name that is not there."""
    if names is not None:
        for name in names:
            if name not in found:
                near = nearest(name, found) or f"; those that do: {', '.join(sorted(found))}"
                raise UserError(f"dataset.folders: {name} holds no pictures of the emoji{near}")
        return {name: found[name] for name in names}
    most = max(map(len, found.values()), default=0)
    whole = [name for name, hexcodes in found.items() if 2 * len(hexcodes) >= most]

    def rank(name: str) -> tuple[bool, bool, int, str]:
        size = re.search(r"(\d+)x\1", name)
        side = int(size[1]) if size else image_size
        return "black" in name, side < image_size, abs(side - image_size), name

    return {name: found[name] for name in sorted(whole, key=rank)[:1]}
