"""Visual Genome (Krishna et al., arXiv 1602.07332): what is where in 108,077 pictures."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from mmnet.bounds import PositiveInt
from mmnet.data.coco_files import evaluation_files, evaluation_images
from mmnet.data.frequent import most_frequent
from mmnet.data.genome_files import (
    IMAGES,
    OfImage,
    Picture,
    Questions,
    Regions,
    Things,
    by_image,
    pictures,
)
from mmnet.data.published import Drawn, Pictures
from mmnet.data.record_split import RecordSplit
from mmnet.data.records import Found, Record
from mmnet.data.text import gist
from mmnet.errors import UserError
from mmnet.interfaces import Names


FILES = {
    "regions": "region_descriptions.json",
    "questions": "question_answers.json",
    "objects": "objects.json",
}
KINDS: dict[str, type[OfImage]] = {"regions": Regions, "questions": Questions, "objects": Things}
OFFERS = {"regions": ("group", "match"), "questions": ("label",), "objects": ("labels", "value")}
FOLDERS = ("VG_100K", "VG_100K_2")
PLACE = re.compile(r"(VG_100K(?:_2)?)/\d+\.jpg$")
EVALUATED = "coco evaluation"  # the split, of a record whose picture COCO evaluates with


@dataclass
class VisualGenome(Drawn, Pictures):
    """One of the three things that its files say of each picture.

    what: "regions": a part of a picture with the phrase of it; "questions": a picture with a
    question, the label being the answer, if it is one of the `num_classes` that are most frequent;
    "objects": a picture, the labels being the `num_classes` most frequent names of objects that
    are in it, the value how many objects are. Answers and names are compared without case,
    spacing and full stop.

    Reads versions 1.0, 1.2 and 1.4 of image_data.json and of region_descriptions.json,
    question_answers.json or objects.json. A picture lies in VG_100K/ or VG_100K_2/, which its
    address tells, mostly: the other one is tried as well. What of a box is beyond its picture is
    cut off; where nothing is left the region is left out and counted. All of a picture is on one
    side of the split, which is drawn.

    Half of the pictures are COCO's. With `coco_root`, the folder of COCO's annotations/, those
    that COCO evaluates with are counted, and left out of training by `leave_out_coco`.

    Raises UserError when files are missing or malformed.
    """

    what: Literal["regions", "questions", "objects"]
    num_classes: PositiveInt
    coco_root: str | None
    leave_out_coco: bool

    title: ClassVar[str] = "visual_genome"
    layouts: ClassVar[list[list[str]]] = [
        ["image_data.json", "region_descriptions.json"],
        ["image_data.json", "question_answers.json"],
        ["image_data.json", "objects.json"],
    ]
    offers: ClassVar[tuple[str, ...]] = ("label", "labels", "value", "group", "match")

    def __post_init__(self) -> None:
        if self.leave_out_coco and self.coco_root is None:
            raise UserError(
                "dataset.leave_out_coco=true: which images COCO evaluates with is in its "
                "annotations; name their folder with dataset.coco_root=<folder>"
            )
        super().__post_init__()

    # Its samples

    def split(self, name: str, targets: tuple[str, ...]) -> RecordSplit:
        """The samples of "train" or "val". Raises UserError."""
        if beyond := [target for target in targets if target not in OFFERS[self.what]]:
            others = [what for what, offered in OFFERS.items() if set(beyond) <= set(offered)]
            raise UserError(
                f"dataset.what={self.what} offers {' and '.join(OFFERS[self.what])}, and a head "
                f"wants {' and '.join(beyond)}"
                + (f", which dataset.what={' and '.join(others)} offers" if others else "")
            )
        found = super().split(name, targets)
        if left_out := len(super().rows(name)) - len(self.rows(name)):
            found.notes = {**found.notes, "not trained on, since COCO evaluates with it": left_out}
        return found

    def learnable(self, name: str) -> tuple[str, ...]:
        return tuple(one for one in super().learnable(name) if one in OFFERS[self.what])

    def rows(self, name: str) -> npt.NDArray[np.int64]:
        rows = super().rows(name)
        if name != "train" or not self.leave_out_coco:
            return rows
        others = pc.not_equal(self.table.column("split"), EVALUATED).to_numpy()
        kept: npt.NDArray[np.int64] = rows[others[rows]]
        return kept

    def picture(self, place: str) -> Path:
        name = place.rpartition("/")[2]
        paths = [self.folder / place, *(self.folder / folder / name for folder in FOLDERS)]
        return next((path for path in paths if path.exists()), paths[0])

    # Its files

    def settings(self) -> dict[str, Any]:
        own = {"what": self.what, "num_classes": self.num_classes, "coco_root": self.coco_root}
        return super().settings() | own

    def sources(self) -> list[Path]:
        files = [self.folder / name for name in (IMAGES, FILES[self.what])]
        for path in files:
            if not path.exists():
                raise UserError(f"dataset.what={self.what}: {self.folder} lacks {path.name}")
        return files + (evaluation_files(Path(self.coco_root)) if self.coco_root else [])

    def records(self, found: Found) -> Iterator[Record]:
        known = pictures(self.folder / IMAGES)
        evaluated = evaluation_images(Path(self.coco_root)) if self.coco_root else set()
        number = {name: place for place, name in enumerate(self._vocabulary())}
        if self.what == "questions":
            found.names.append(Names(classes=list(number)))
        elif self.what == "objects":
            found.names.append(Names(labels=list(number), unit="objects"))
        for id, told in self._described():
            picture = known.get(id)
            if picture is None:
                found.notes["images that image_data.json does not list"] += 1
                continue
            found.notes["images that COCO trains or evaluates with"] += picture.coco_id is not None
            found.notes["images that COCO evaluates with"] += picture.coco_id in evaluated
            for record in records_of(told, id, picture, number, found):
                yield record._replace(
                    image=place_of(picture, id),
                    split=EVALUATED if picture.coco_id in evaluated else "",
                    group=str(id),
                )

    def _described(self) -> Iterator[tuple[int, OfImage]]:
        return by_image(self.folder / FILES[self.what], KINDS[self.what])

    def _vocabulary(self) -> list[str]:
        """The answers, or the names of objects, that are told apart."""
        counts: Counter[str] = Counter()
        for _, told in self._described():
            if isinstance(told, Questions):
                counts.update(gist(one.answer) for one in told.qas)
            elif isinstance(told, Things):
                counts.update(names_in(told))
        counts.pop("", None)
        what = "answers" if self.what == "questions" else "names of objects"
        return most_frequent(counts, self.num_classes, f"{what} in {self.folder}")


def records_of(
    told: OfImage, id: int, picture: Picture, number: dict[str, int], found: Found
) -> Iterator[Record]:
    """What is said of one image; where the record is the image's is left to be filled in."""
    match told:
        case Regions(regions=regions):
            for place, region in enumerate(regions):
                box = region.box(picture)
                if box is None:
                    found.notes["regions without area within their picture"] += 1
                    continue
                own = region.id if region.region_id is None else region.region_id
                key = f"{id}#{place if own is None else own}"
                yield Record(key=key, captions=(region.phrase,), box=box)
        case Questions(qas=questions):
            for one in questions:
                label = number.get(gist(one.answer))
                if label is None:
                    found.notes["questions whose answer is none of the most frequent"] += 1
                else:
                    yield Record(key=f"{id}#{one.qa_id}", captions=(one.question,), label=label)
        case Things(objects=objects):
            present = sorted(number[name] for name in names_in(told) if name in number)
            yield Record(key=str(id), present=tuple(present), value=float(len(objects)))


def names_in(things: Things) -> set[str]:
    return {gist(name) for one in things.objects for name in one.names}


def place_of(picture: Picture, id: int) -> str:
    """Where an image lies by its address."""
    found = PLACE.search(picture.url)
    return found[0] if found else f"{FOLDERS[0]}/{id}.jpg"
