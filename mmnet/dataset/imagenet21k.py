"""ImageNet-21K (Deng et al., CVPR 2009; MIIL's edition: arXiv 2104.10972), a folder a synset."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from mmnet.bounds import PositiveInt
from mmnet.data.files import lines
from mmnet.data.published import Pictures, SplitsIfAny
from mmnet.data.records import Found, Record
from mmnet.data.tars import compressed, members, place_of, read_place
from mmnet.data.wordnet import WNID, distinct, first, lemmas, synsets
from mmnet.errors import UserError, nearest
from mmnet.interfaces import Names


# The orders of the classes that are in use, as timm's lists have them.
ORDERS = {
    "fall11": "imagenet22k_synsets",
    "goog": "imagenet21k_goog_synsets",
    "ms": "imagenet22k_ms_synsets",
    "miil": "imagenet21k_miil_synsets",
    "miil_w21": "imagenet21k_miil_w21_synsets",
    "12k": "imagenet12k_synsets",
}
MIIL = {"imagenet21k_train": "train", "imagenet21k_val": "val"}
SUFFIXES = (".jpeg", ".jpg", ".png")


@dataclass
class ImageNet21k(SplitsIfAny, Pictures):
    """Pictures of synsets; the class is the synset's place in the order that `classes` names.

    Reads <wnid>/ and <wnid>.tar, one beside the other or below each other, the publisher's
    archive of such tars (fall11_whole.tar; nothing is unpacked) and MIIL's imagenet21k_train/
    and imagenet21k_val/, which are the published splits; of the others a sample is val by a
    hash of its name.

    classes: fall11 (21,841 synsets), goog (21,843), ms (21,842), miil (11,221), miil_w21
    (10,450) or 12k (11,821), or a file of WordNet ids, one a line, by a path below the root or
    from anywhere. Pictures of other synsets are left out and counted. caption: "name", the first
    name of the class is the text. Nothing is known of how many pictures of ImageNet-1K's
    validation set are among these; those of its synsets are counted.

    Raises UserError when the order or the files cannot be read, or disagree with num_classes.
    """

    classes: str
    num_classes: PositiveInt
    caption: Literal["name"] | None

    title: ClassVar[str] = "imagenet21k"
    layouts: ClassVar[list[list[str]]] = [
        ["imagenet21k_train/n[0-9]*", "imagenet21k_val/n[0-9]*"],
        ["n[0-9]*"],
        ["*_whole.tar*"],
    ]
    offers: ClassVar[tuple[str, ...]] = ("label",)
    remedy: ClassVar[str] = ""

    def sources(self) -> list[Path]:
        above = [self.folder / name for name in MIIL] if self.layout == 0 else [self.folder]
        order = [] if self.classes in ORDERS else [self._order_file]
        return [*above, *(part for _, part in self._parts), *order]

    def settings(self) -> dict[str, Any]:
        return {"classes": self.classes, "caption": self.caption}

    def picture(self, place: str) -> Path | bytes:
        path = super().picture(place)
        return read_place(self.folder, place) or path

    def records(self, found: Found) -> Iterator[Record]:
        order = self._order()
        number = {wnid: index for index, wnid in enumerate(order)}
        names, small = lemmas(), set(synsets("imagenet_synsets"))
        found.names.append(Names(classes=distinct(order, names)))
        for split, part in self._parts:
            for wnid, key, place in self._pictures(part):
                if wnid not in number:
                    found.notes[f"pictures of synsets that are not in classes={self.classes}"] += 1
                    continue
                if wnid in small:
                    found.notes["pictures of synsets of ImageNet-1K"] += 1
                caption = (first(names.get(wnid, wnid)),) if self.caption else ()
                yield Record(key, place, caption, split, label=number[wnid])

    @cached_property
    def _parts(self) -> list[tuple[str, Path]]:
        """The split and the path of each folder and each tar of pictures."""
        if self.layout == 0:
            above = [(split, self.folder / name) for name, split in MIIL.items()]
        elif self.layout == 1:
            above = [("", self.folder)]
        else:
            return [("", path) for path in sorted(self.folder.glob(self.layouts[2][0]))]
        return [
            (split, Path(one.path))
            for split, folder in above
            for one in sorted(os.scandir(folder), key=lambda entry: entry.name)
            if WNID.fullmatch(one.name.partition(".")[0])
            and (one.is_dir() or one.name.endswith(".tar"))
        ]

    def _pictures(self, part: Path) -> Iterator[tuple[str, str, str]]:
        """Synset, key and place of each picture of a folder or a tar."""
        place = part.relative_to(self.folder).as_posix()
        if part.is_dir():
            for name in sorted(one.name for one in os.scandir(part)):
                if name.lower().endswith(SUFFIXES):
                    yield part.name, f"{place}/{name}", f"{place}/{name}"
            return
        if part.stat().st_size == 0:
            return  # the publisher has such synsets
        if compressed(part):
            raise UserError(
                f"{part} is compressed, so that nothing in it can be read in place; this leaves a "
                f"tar that can: gunzip {part}"
            )
        for member in members(part):
            name = member.name.rpartition("/")[2]
            yield name.partition("_")[0], member.name, place_of(place, member)

    def _order(self) -> list[str]:
        if self.classes in ORDERS:
            return synsets(ORDERS[self.classes])
        found: dict[str, int] = {}
        for number, line in enumerate(lines(self._order_file), 1):
            wnid = line.strip().partition(" ")[0]
            if not wnid:
                continue
            if not WNID.fullmatch(wnid) or wnid in found:
                what = f"stands on line {found[wnid]} already" if wnid in found else "is no synset"
                raise UserError(f"{self._order_file}, line {number}: '{line}' {what}")
            found[wnid] = number
        return list(found)

    @cached_property
    def _order_file(self) -> Path:
        for path in (self.folder / self.classes, Path(self.classes)):
            if path.is_file():
                return path
        raise UserError(
            f"dataset.classes={self.classes} is neither a file below {self.folder} nor one of "
            f"{', '.join(ORDERS)}{nearest(self.classes, ORDERS)}"
        )
