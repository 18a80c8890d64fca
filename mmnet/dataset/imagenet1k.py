"""ImageNet-1K (ILSVRC2012; Russakovsky et al., arXiv 1409.0575) in the layouts it is shipped in."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from mmnet.bounds import PositiveInt
from mmnet.data.image_rows import class_names, has_columns, image_rows, read_row
from mmnet.data.imagenet_files import (
    MAPPING,
    SOLUTION,
    devkit,
    devkit_files,
    mapping,
    solution,
    wnid_of,
)
from mmnet.data.published import Pictures, Splits
from mmnet.data.records import Found, Record
from mmnet.data.tars import members, place_of, read_place
from mmnet.data.wordnet import WNID, distinct, first, lemmas, synsets
from mmnet.errors import UserError
from mmnet.interfaces import Names


SPLITS = ("train", "val", "test")
KAGGLE, FOLDERS, FLAT, ARCHIVES, TARS, UNPACKED, PARQUET, PACKED = range(8)
CLS_LOC = "ILSVRC/Data/CLS-LOC"
SUFFIXES = (".jpeg", ".jpg", ".png")


class Picture(NamedTuple):
    """One picture, wherever it lies."""

    split: str
    key: str
    place: str
    wnid: str | None = None  # as its path says it


@dataclass
class ImageNet1k(Splits, Pictures):
    """Pictures of 1,000 synsets; the class is the rank of the synset's WordNet id among them.

    Reads Kaggle's folder (flat val/ and LOC_val_solution.csv), train/<wnid>/ and val/<wnid>/ as
    torchvision has them, the same with a flat val/, the original archives
    (ILSVRC2012_img_*.tar with the devkit; nothing is unpacked) and the Hugging Face hub's
    (data/*_images*.tar, the folders they unpack to, or parquet). The class is the same in all of
    them, whatever numbers a layout has of its own. A test split is there as far as its pictures
    are, without labels.

    num_classes below 1,000: the folder holds a part such as ImageNet-100, whose synsets are
    ranked among themselves. caption: "name", the first name of the class is the text.

    Raises UserError when the files are malformed, compressed or disagree with num_classes.
    """

    num_classes: PositiveInt
    caption: Literal["name"] | None

    title: ClassVar[str] = "imagenet1k"
    layouts: ClassVar[list[list[str]]] = [
        [MAPPING, f"{CLS_LOC}/train"],
        ["train/n[0-9]*", "val/n[0-9]*"],
        ["train/n[0-9]*", "val/ILSVRC2012_val_*"],
        ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"],
        ["data/train_images*.tar", "data/val_images*.tar"],
        ["data/train_images*/*.JPEG", "data/val_images*/*.JPEG"],
        ["data/train-*-of-*.parquet", "data/validation-*-of-*.parquet"],
        ["data/train_images*.tar.gz", "data/val_images*.tar.gz"],
    ]
    offers: ClassVar[tuple[str, ...]] = ("label",)

    @classmethod
    def accepts(cls, folder: Path) -> bool:
        """Where only the names of parquet files say so, whether they hold pictures and labels."""
        others = [layout[0] for number, layout in enumerate(cls.layouts) if number != PARQUET]
        if any(next(folder.glob(part), None) for part in others):
            return True
        return has_columns(next(folder.glob(cls.layouts[PARQUET][0])), ("image", "label"))

    def sources(self) -> list[Path]:
        files = [self.folder / name for name in (MAPPING, SOLUTION)]
        return [*self._parts, *(path for path in files if path.is_file()), *self._devkit]

    def settings(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes, "caption": self.caption}

    def picture(self, place: str) -> Path | bytes:
        path = super().picture(place)
        if self.layout == PARQUET:
            return read_row(self.folder, place)
        return read_place(self.folder, place) or path

    def records(self, found: Found) -> Iterator[Record]:
        if self.layout in (TARS, PACKED):
            self._refuse_packed()
        if self.layout == PARQUET:
            yield from self._rows(found)
            return
        truths, names = self._truths()
        classes = self._classes(set(truths.values()), names)
        names = names or lemmas()
        number = {wnid: index for index, wnid in enumerate(classes)}
        found.names.append(Names(classes=distinct(classes, names)))
        for picture in self._pictures():
            wnid = picture.wnid
            if wnid is None and picture.split == "val":
                wnid = truths.get(picture.key.rpartition("/")[2].partition(".")[0])
            if wnid is None and picture.split != "test":
                found.notes[f"pictures of {picture.split} of which no file tells the class"] += 1
                continue
            if wnid is not None and wnid not in number:
                raise UserError(
                    f"{self.folder / picture.place}: {wnid} is none of the {len(classes):,} "
                    f"synsets of {self.title}"
                )
            label = None if wnid is None else number[wnid]
            caption = (first(names.get(wnid, wnid)),) if self.caption and wnid else ()
            yield Record(picture.key, picture.place, caption, picture.split, label=label)

    def _refuse_packed(self) -> None:
        for path in sorted(self.folder.glob("data/*_images*.tar.gz")):
            if not path.with_suffix("").is_file():
                raise UserError(
                    f"{path} is compressed, so that nothing in it can be read in place; this "
                    f"leaves tars that can: gunzip {self.folder}/data/*.tar.gz"
                )

    def _truths(self) -> tuple[dict[str, str], dict[str, str]]:
        """The synset of each val picture whose path does not say it, and names of synsets."""
        truths, names = {}, {}
        if (self.folder / MAPPING).is_file():
            names = mapping(self.folder / MAPPING)
        if (self.folder / SOLUTION).is_file():
            truths = solution(self.folder / SOLUTION)
        elif self._devkit:
            truths, said = devkit(self.folder)
            names = names or said
        return truths, names

    def _classes(self, told: set[str], names: dict[str, str]) -> list[str]:
        """The synsets in the order of their classes."""
        whole = sorted(names) or synsets("imagenet_synsets")
        if self.num_classes == len(whole):
            return whole
        here = sorted(told | {one.wnid for one in self._pictures() if one.wnid is not None})
        return here if len(here) == self.num_classes else whole

    @cached_property
    def _devkit(self) -> list[Path]:
        return devkit_files(self.folder)

    @cached_property
    def _parts(self) -> list[Path]:
        """The files that hold pictures, or the folders."""
        if self.layout == ARCHIVES:
            archives = sorted(self.folder.glob("ILSVRC2012_img_*.tar"))
            return [path for path in archives if "_t3" not in path.name]  # the dogs once more
        if self.layout == TARS:
            return sorted(self.folder.glob("data/*_images*.tar"))
        if self.layout == UNPACKED:
            return sorted(path for path in self.folder.glob("data/*_images*") if path.is_dir())
        if self.layout == PARQUET:
            return sorted(self.folder.glob("data/*-*-of-*.parquet"))
        if self.layout == PACKED:
            return []
        base = self.folder / CLS_LOC if self.layout == KAGGLE else self.folder
        splits = [base / split for split in SPLITS if (base / split).is_dir()]
        within = (Path(one) for split in splits for one in os.scandir(split) if one.is_dir())
        return sorted([*splits, *(one for one in within if WNID.fullmatch(one.name))])

    def _pictures(self) -> Iterator[Picture]:
        for part in self._parts:
            place = part.relative_to(self.folder).as_posix()
            told = part.name if self.layout >= ARCHIVES else place.removeprefix(CLS_LOC).lstrip("/")
            split = next((one for one in SPLITS if one in told.partition("/")[0]), "")
            if not split:
                continue  # such as the archive of bounding boxes
            if part.is_file():
                for member in members(part):
                    wnid = wnid_of(member.name)
                    yield Picture(split, member.name, place_of(place, member), wnid)
            else:
                for name in sorted(one.name for one in os.scandir(part)):
                    if name.lower().endswith(SUFFIXES):
                        path = f"{place}/{name}"
                        yield Picture(split, path, path, wnid_of(path))

    def _rows(self, found: Found) -> Iterator[Record]:
        classes = synsets("imagenet_synsets")
        called = class_names(self._parts[0], "label")
        names = dict(zip(classes, called, strict=True)) if len(called) == len(classes) else lemmas()
        found.names.append(Names(classes=distinct(classes, names)))
        for part in self._parts:
            place = part.relative_to(self.folder).as_posix()
            split = part.name.partition("-")[0].replace("validation", "val")
            for row in image_rows(self.folder, place, "label"):
                label = None if row.label is None or row.label < 0 else row.label  # test has -1
                if label is not None and label >= len(classes):
                    raise UserError(f"{part}: label {label}, expected less than {len(classes)}")
                caption = () if label is None else (first(names[classes[label]]),)
                yield Record(
                    row.key, row.place, caption if self.caption else (), split, label=label
                )
