"""MS COCO captions (Lin et al., arXiv 1405.0312), from the published files as they unpack.

Or divided as Karpathy and Fei-Fei did (arXiv 1412.2306), by their dataset_coco.json.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from mmnet.bounds import PositiveInt
from mmnet.data.coco_files import KARPATHY, Captions, Contents, contents_of, names_of, texts_of
from mmnet.data.files import read_json
from mmnet.data.karpathy import Photo, read_karpathy
from mmnet.data.published import Pictures, Splits
from mmnet.data.record_split import RecordSplit
from mmnet.data.records import Found, Record
from mmnet.errors import UserError
from mmnet.interfaces import Names


EDITIONS = (2017, 2014)
SPLITS = ("train", "val")
OF_INSTANCES = ("label", "labels", "value")  # targets
NAME_2014, NAME_2017 = re.compile(r"COCO_\w+2014_(\d{12}\.jpg)"), re.compile(r"\d{12}\.jpg")


@dataclass
class Coco(Splits, Pictures):
    """Photos with captions; the label is the supercategory of the photo's largest instance.

    Also to be learnt: all supercategories in it (labels), how many instances it has (value),
    which photo a caption belongs to (group), and whether it belongs to this one (match: half
    of the texts are captions of another photo, each as likely as any other).

    Largest by `area`, the lowest id among equals; crowd regions (iscrowd=1) are no
    instances. The classes are the supercategories in the order of the file's categories.
    Photos without a caption are left out; those without an instance are where label, labels or
    value is learnt. Without files of instances only group and match can be.

    splits: "published" are train and val of `edition` (None: the one that is there, 2017 of
    both); "karpathy" are train, restval, val and test of dataset_coco.json, which lies beside
    annotations/ or in it. The photos are the same in all of them, under other names: one that
    is not in its own split's folder is looked for in those of the other edition.

    `root` is the folder that holds annotations/ beside train2017/ and val2017/ (or 2014), which
    may also be within images/. Training draws one of a photo's captions, a random crop and a
    mirroring; evaluation takes the whole photo with the caption of the lowest id, or, where
    captions are told apart by photo (group), with each of its captions in turn.

    Raises UserError when the files are not found, are malformed or disagree with num_classes.
    """

    splits: Literal["published", "karpathy"]
    edition: Literal[2017, 2014] | None
    num_classes: PositiveInt

    title: ClassVar[str] = "coco"
    layouts: ClassVar[list[list[str]]] = [
        ["annotations/captions_train2017.json", "annotations/captions_val2017.json"],
        ["annotations/captions_train2014.json", "annotations/captions_val2014.json"],
        ["annotations/captions_val2017.json"],
        ["annotations/captions_train2017.json"],
        ["annotations/captions_val2014.json"],
        ["annotations/captions_train2014.json"],
        ["dataset_coco.json"],
        ["annotations/dataset_coco.json"],
        ["karpathy/dataset_coco.json"],
    ]
    offers: ClassVar[tuple[str, ...]] = ("label", "labels", "value", "group", "match")

    @classmethod
    def accepts(cls, folder: Path) -> bool:
        """Captions without photos are COCO where they are named, not where it is looked for."""
        return any(
            (folder / within / f"{split}{edition}").is_dir()
            for within in ("", "images")
            for split in SPLITS
            for edition in EDITIONS
        )

    # Its samples

    def split(self, name: str, targets: tuple[str, ...]) -> RecordSplit:
        """The samples of "train" or "val", ordered by image id. Raises UserError, see above."""
        asked = [target for target in targets if target in OF_INSTANCES]
        if not asked:
            return super().split(name, targets)
        rows = self.rows(name)
        told = pc.is_valid(self.table.column("present")).to_numpy()[rows]
        if not told.all():
            raise UserError(
                f"dataset=coco: {' and '.join(asked)} can be learnt from instances, and "
                f"{self.folder} has none of {np.count_nonzero(~told):,} of the {len(rows):,} "
                f"photos of {name}: annotations/instances_{{train,val}}{self._edition}.json say "
                f"nothing of them. Without them group and match can be"
            )
        rows = rows[pc.is_valid(self.table.column("label")).to_numpy()[rows]]
        if len(rows) == 0:
            raise UserError(
                f"dataset=coco: no photo of {name} in {self.folder} has an instance, so that there "
                f"is no {asked[0]} to be learnt"
            )
        return RecordSplit(self, name, rows, targets, dict(self.table.notes))

    def rows(self, name: str) -> npt.NDArray[np.int64]:
        asked = {"train": self.train_split, "val": self.val_split}.get(name, [name])
        if self.splits == "published" and "test" in asked:
            raise UserError(
                f"dataset.{name}_split=test: the captions of COCO's own test are not published; "
                f"Karpathy's test has some (dataset.splits=karpathy)"
            )
        return super().rows(name)

    def picture(self, place: str) -> Path:
        places = [place]
        if named := NAME_2014.fullmatch(place.rpartition("/")[2]):
            places += [f"{split}2017/{named[1]}" for split in SPLITS]
        elif named := NAME_2017.fullmatch(place.rpartition("/")[2]):
            places += [f"{split}2014/COCO_{split}2014_{named[0]}" for split in SPLITS]
        paths = (self.folder / within / one for one in places for within in ("", "images"))
        return next((path for path in paths if path.exists()), self.folder / place)

    # Its files

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"splits": self.splits, "edition": self.edition}

    def sources(self) -> list[Path]:
        instances = list(self._files("instances").values())
        if self.splits == "karpathy":
            return [self._karpathy(), *instances]
        captions = list(self._files("captions").values())
        if not captions:
            raise UserError(
                f"dataset.splits=published, dataset.edition={self.edition or 'null'}: "
                f"{self.folder} has no annotations/captions_{{train,val}}{self._edition}.json"
            )
        return captions + instances

    def records(self, found: Found) -> Iterator[Record]:
        contents = {split: contents_of(path) for split, path in self._files("instances").items()}
        if contents:
            found.names.append(_names(list(contents.values())))
        if self.splits == "karpathy":
            yield from self._divided(contents, found)
            return
        for split, path in self._files("captions").items():
            folder = f"{split}{self._edition}"
            yield from _published(split, folder, path, contents.get(split), found)

    def _divided(self, contents: dict[str, Contents], found: Found) -> Iterator[Record]:
        listing = {photo.id: one for one in contents.values() for photo in one.photos}
        path = self._karpathy()
        photos: dict[int, Photo] = {}
        for photo in read_karpathy(path):
            if photo.cocoid is None or not photo.filepath:
                raise UserError(f"{path}: {photo.filename} has no cocoid or no filepath")
            photos[photo.cocoid] = photo
        for image, photo in sorted(photos.items()):
            place, known = f"{photo.filepath}/{photo.filename}", listing.get(image)
            if known is not None and image not in known.labels:
                found.notes["images without instances"] += 1
            if photo.sentences:
                yield _record(place, photo.captions(), photo.split, image, known)
            else:
                found.notes["images without captions"] += 1

    @property
    def _edition(self) -> int:
        if self.edition is not None:
            return self.edition
        named = self.layouts[self.layout][0]
        return next((edition for edition in EDITIONS if str(edition) in named), self._of_instances)

    @property
    def _of_instances(self) -> int:
        """The edition whose instances are there, for Karpathy's splits of either."""
        for edition in EDITIONS:
            if any((self.folder / "annotations").glob(f"instances_*{edition}.json")):
                return edition
        return EDITIONS[0]

    def _files(self, kind: str) -> dict[str, Path]:
        """Those of the edition that are there, by split."""
        paths = {
            split: self.folder / f"annotations/{kind}_{split}{self._edition}.json"
            for split in SPLITS
        }
        return {split: path for split, path in paths.items() if path.exists()}

    def _karpathy(self) -> Path:
        for name in KARPATHY:
            if (self.folder / name).exists():
                return self.folder / name
        raise UserError(
            f"dataset.splits=karpathy: {self.folder} lacks {KARPATHY[0]}, which comes in "
            f"caption_datasets.zip"
        )


def _published(
    split: str, folder: str, path: Path, contents: Contents | None, found: Found
) -> Iterator[Record]:
    captions = read_json(path, Captions)
    texts = texts_of(captions)
    listed = {path: captions.images}
    annotated = set(texts)
    if contents is not None:
        listed[contents.path] = contents.photos
        annotated |= contents.labels.keys()
    photos = names_of(listed)
    found.notes["images without captions"] += len(photos.keys() - texts.keys())
    found.notes["annotated images that are not listed"] += len(annotated - photos.keys())
    if contents is not None:
        found.notes["images without instances"] += len(photos.keys() - contents.labels.keys())
    for image in sorted(photos.keys() & texts.keys()):
        yield _record(f"{folder}/{photos[image]}", texts[image], split, image, contents)


def _record(
    place: str, captions: tuple[str, ...], split: str, image: int, contents: Contents | None
) -> Record:
    record = Record(key=place, image=place, captions=captions, split=split)
    if contents is None:
        return record
    held = contents.held.get(image, [])
    return record._replace(
        label=contents.labels.get(image), present=tuple(sorted(set(held))), value=float(len(held))
    )


def _names(contents: list[Contents]) -> Names:
    """What the classes are called. Raises UserError where splits have other ones."""
    first, *others = reversed(contents)
    for other in others:
        if other.classes != first.classes:
            raise UserError(
                f"{other.path}: supercategories {', '.join(other.classes)}, but those of "
                f"{first.path.name} are {', '.join(first.classes)}"
            )
    return Names(classes=first.classes, labels=first.classes, unit="instances")
