"""OpenMoji (openmoji.org): emoji as pictures with their names, from the published files."""

import os
import random
import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

from mmnet.bounds import PositiveInt, Range, Share
from mmnet.data.augment import Augment, augmented, whole
from mmnet.data.files import digest_of, lacking, read_csv, root_of
from mmnet.data.held_out import held_out
from mmnet.data.image import read_image
from mmnet.data.pairs import another, fits
from mmnet.data.text import clean_caption
from mmnet.errors import UserError, nearest
from mmnet.interfaces import Names, Sample


LAYOUTS = [["openmoji.csv"], ["data/openmoji.csv"]]  # the second is the published repository
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


class Picture(NamedTuple):
    """One picture of an emoji."""

    file: str  # below the root
    emoji: Emoji
    group: int  # emoji that mean the same


class View(NamedTuple):
    """How an emoji becomes a picture of the network's size and a text."""

    image_size: int
    crop_scale: float
    tag_probability: float


class OpenMoji:
    """Pictures of emoji and their names (annotations); the label is the group, as a class.

    A name's stem is what stands before its colon: "waving hand: dark skin tone" is a variant
    of "waving hand", "woman: red hair" of "woman". Variants share a `group`; of flags and
    keycaps, whose stem says nothing, each has its own. `val_fraction` of the stems, by their
    hash, are val with all that they stand for (all flags are on one side, too), so that nothing
    that is evaluated has been seen in another colour. `match`: half of the texts are the name
    of an emoji of another group, each as likely as any other.

    The classes are the groups in the order of the file. `root` is the folder that holds
    openmoji.csv or data/openmoji.csv; None: the one such folder at or below `data`. Pictures
    are `<hexcode>.png` in `folders`, relative to the root; each folder adds a picture of every
    emoji that it has. None: of the folders with pictures of most emoji, the one in colour with
    the smallest pictures that are not below image_size, as far as names tell (color/72x72).
    Emoji without a picture are left out and counted.

    Training draws a random crop and, with `tag_probability`, says one to three of the emoji's
    tags after its name; evaluation takes the whole picture and the name. Pictures are never
    mirrored: some point left or right.

    Raises UserError when the files are not found, are malformed or disagree with num_classes.
    """

    offers: ClassVar[tuple[str, ...]] = ("label", "group", "match")

    def __init__(
        self,
        root: str | None,
        folders: list[str] | None,
        num_classes: PositiveInt,
        image_size: PositiveInt,
        crop_scale: Annotated[float, Range(0, 1 + 1e-12, open=True, says="a number in (0, 1]")],
        tag_probability: Share,
        val_fraction: Annotated[float, Range(0, 1, open=True, says="a number in (0, 1)")],
        on_bad_sample: Literal["skip", "fail"],
        max_bad_fraction: Share,
        data: Path,
    ) -> None:
        self.on_bad_sample = on_bad_sample
        self.max_bad_fraction = max_bad_fraction
        self._view = View(image_size, crop_scale, tag_probability)
        self._root = root_of("openmoji", root, data, LAYOUTS)
        [part] = next(layout for layout in LAYOUTS if not lacking(self._root, [layout]))
        self._path = self._root / part
        self._emoji, classes = read_emoji(self._path)
        self.names = Names(classes=classes)
        if len(classes) != num_classes:
            raise UserError(
                f"dataset.num_classes={num_classes}, but {self._path} has {len(classes)} groups: "
                f"{', '.join(classes)}"
            )
        self._held = held_out((stem(one.annotation) for one in self._emoji), val_fraction)
        self._folders = chosen_folders(
            pictures_below(self._root, {one.hexcode for one in self._emoji}), folders, image_size
        )
        if not self._folders:
            raise UserError(
                f"{self._root} holds no pictures of its emoji, such as "
                f"{self._emoji[0].hexcode}.png, in itself or up to {DEPTH} folders below"
            )

    def split(self, name: str, targets: tuple[str, ...]) -> "OpenMojiSplit":
        """The samples of "train" or "val", in the order of the file. Raises UserError."""
        wanted = name == "val"
        emoji = [one for one in self._emoji if (stem(one.annotation) in self._held) == wanted]
        groups: dict[str, int] = {}
        for one in emoji:
            groups.setdefault(meaning(one.annotation), len(groups))
        pictures = [
            Picture(f"{folder}/{one.hexcode}.png", one, groups[meaning(one.annotation)])
            for one in emoji
            for folder, hexcodes in self._folders.items()
            if one.hexcode in hexcodes
        ]
        without = len(emoji) - len({picture.emoji.hexcode for picture in pictures})
        if not pictures:
            raise UserError(
                f"{self._path}: {len(emoji)} emoji for {name} and none with a picture in "
                f"{', '.join(self._folders)}: {name} would be empty"
            )
        notes = {"emoji without a picture": without} if without else {}
        return OpenMojiSplit(self._root, pictures, notes, self._view, targets)


class OpenMojiSplit:
    """Pictures with their emoji's names."""

    def __init__(
        self,
        root: Path,
        pictures: list[Picture],
        notes: dict[str, int],
        view: View,
        targets: tuple[str, ...],
    ) -> None:
        self._root, self._pictures, self._view, self._targets = root, pictures, view, targets
        self.notes = notes
        self.digest = digest_of(pictures)

    def __len__(self) -> int:
        return len(self._pictures)

    def key(self, index: int) -> str:
        return self._pictures[index].file

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        file, emoji, group = self._pictures[index]
        named, sample = emoji, Sample()
        for target in self._targets:
            match target:
                case "label":
                    sample["label"] = emoji.label
                case "group":
                    sample["group"] = group
                case "match":
                    named = self._named(index, rng)
                    sample["match"] = int(named is emoji)
        # Drawn whether it is asked for or not, so that crops do not depend on that.
        text = named.annotation if rng is None else self._tagged(named, rng)
        if "text" in modalities:
            sample["text"] = clean_caption(text, file)
        if "image" in modalities:
            size, crop_scale, _ = self._view
            picture = read_image(self._root / file, file)
            sample["image"] = (
                whole(picture, size)
                if rng is None
                else augmented(
                    picture, size, Augment(crop_scale, 0, None, None, True, True, 0, 0), rng
                )
            )
        return sample

    def _named(self, index: int, rng: random.Random | None) -> Emoji:
        """Whose name stands beside the picture: its own emoji, or one of another group."""
        own = self._pictures[index]
        if fits(index, rng):
            return own.emoji
        other = another(
            index, len(self._pictures), rng, lambda i: self._pictures[i].group == own.group
        )
        return own.emoji if other is None else self._pictures[other].emoji

    def _tagged(self, emoji: Emoji, rng: random.Random) -> str:
        """The name, and now and then some of the tags after it."""
        tags: list[str] = []
        if rng.random() < self._view.tag_probability and emoji.tags:
            count = min(rng.randint(1, MAX_TAGS), len(emoji.tags))
            tags = rng.sample(emoji.tags, count)
        return ", ".join([emoji.annotation, *tags])


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


def pictures_below(root: Path, hexcodes: set[str]) -> dict[str, set[str]]:
    """Folder relative to the root -> the hexcodes that it has a PNG of, where there are any."""
    found = {}
    for path, folders, files in os.walk(root, followlinks=True):
        folder = Path(path).relative_to(root)
        if len(folder.parts) >= DEPTH:
            folders.clear()
        has = {file.removesuffix(".png") for file in files if file.endswith(".png")} & hexcodes
        if has:
            found[folder.as_posix()] = has
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
