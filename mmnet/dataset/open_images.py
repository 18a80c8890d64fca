"""Open Images V1 to V7 (Kuznetsova et al., arXiv 1811.00982): labels, boxes and narratives."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np

from mmnet.bounds import PositiveInt, Share
from mmnet.data.csv_rows import number, read_rows
from mmnet.data.files import read_json_lines
from mmnet.data.open_images_files import Files, Here, turns
from mmnet.data.published import Pictures, Splits
from mmnet.data.records import Found, Record
from mmnet.errors import UserError
from mmnet.interfaces import Names


LABELS = ("ImageID", "LabelName", "Confidence")
BOXES = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
# What is known of a label of a picture; where files disagree, the highest holds.
MACHINE, VERIFIED_ABSENT, VERIFIED = 1, 2, 3


class Narrative(msgspec.Struct, gc=False):
    """What is read of a localized narrative, by its own names."""

    image_id: str
    caption: str


@dataclass
class OpenImages(Splits, Pictures):
    """Photos as far as they were downloaded, with what `what` names.

    labels: those that people verified to be there and those that they verified not to be; of
    all others nobody knows. By machines (labels_by machine or both) those of at least
    `confidence` are there, too, and what people say comes first.
    boxes: each box is a sample, cut out, with its class.
    narratives: several a photo, by voice.

    classes: boxable or all, the file of class descriptions that says what classes there are and
    in which order; null: the boxable ones if that file is there. What is said of others is left
    out and counted. Tables are told by their names, whichever version they are of, and pictures
    are looked for in <split>/, images/<split>/, <split>/data/, train_0/ to train_f/, images/
    and beside the tables. The column Rotation is applied: that many degrees counter-clockwise,
    to photos and boxes alike.

    Raises UserError when a table is missing or malformed, or disagrees with num_classes.
    """

    what: Literal["labels", "boxes", "narratives"]
    classes: Literal["boxable", "all"] | None
    num_classes: PositiveInt
    labels_by: Literal["human", "machine", "both"]
    confidence: Share

    title: ClassVar[str] = "open_images"
    layouts: ClassVar[list[list[str]]] = [
        ["*class-descriptions*.csv"],
        ["annotations/*class-descriptions*.csv"],
        ["metadata/*class-descriptions*.csv"],
        ["labels/*class-descriptions*.csv"],
        ["csv/*class-descriptions*.csv"],
        ["v[0-9]*/*class-descriptions*.csv"],
        ["train/metadata/classes.csv"],
        ["dict.csv"],
        ["*localized_narratives*.jsonl"],
        ["annotations/*localized_narratives*.jsonl"],
        ["localized-narratives/annotations/*localized_narratives*.jsonl"],
    ]
    offers: ClassVar[tuple[str, ...]] = ("label", "labels", "group", "match")
    unsaid: ClassVar[float] = float("nan")
    remedy: ClassVar[str] = "; it trains on the photos that are there"

    def sources(self) -> list[Path]:
        tables = [path for paths in self._files.found.values() for path in paths]
        return [*tables, *self._here.folders]

    def settings(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "classes": self.classes,
            "labels_by": self.labels_by,
            "confidence": self.confidence,
        }

    def records(self, found: Found) -> Iterator[Record]:
        turn = turns(self._files)
        if self.what == "narratives":
            records = self._narratives(found)
        else:
            names = self._files.classes(self.classes)
            called = list(names.values())
            found.names.append(Names(classes=called, labels=called))
            index = {mid: place for place, mid in enumerate(names)}
            records = (self._boxes if self.what == "boxes" else self._labels)(found, index)
        for image_id, record in records:
            yield record._replace(turn=turn.get(image_id, 0))

    @cached_property
    def _files(self) -> Files:
        return Files(self.folder)

    @cached_property
    def _here(self) -> Here:
        return Here(self.folder)

    def _tables(self, *kinds: str) -> list[tuple[str, str, Path]]:
        """(kind, split, path) of each. Raises UserError if there is none."""
        tables = [(kind, *one) for kind in kinds for one in self._files.of(kind)]
        if not tables:
            named = {"boxes": "annotations-bbox.csv", "narratives": "localized_narratives*.jsonl"}
            wanted = " or ".join(
                f"*{named.get(kind, f'{kind}-imagelabels*.csv')}" for kind in kinds
            )
            raise UserError(f"dataset.what={self.what}: {self.folder} holds no {wanted}")
        return tables

    def _labels(self, found: Found, index: dict[str, int]) -> Iterator[tuple[str, Record]]:
        kinds = ("human", "machine") if self.labels_by == "both" else (self.labels_by,)
        rows: dict[tuple[str, str], int] = {}  # (split, image id) -> its number
        which, labels, known = array("i"), array("i"), array("b")
        for kind, split, path in self._tables(*kinds):
            for line, (image_id, mid, confidence) in read_rows(path, LABELS):
                if mid not in index:
                    found.notes["labels of classes that are not read"] += 1
                    continue
                sure = number(confidence, path, line, "Confidence")
                if kind == "machine" and sure < self.confidence:
                    found.notes["labels by machines below dataset.confidence"] += 1
                    continue
                row = rows.get((split, image_id))
                if row is None:
                    if self._here.find(image_id, split) is None:
                        found.notes["labels of photos that are not here"] += 1
                        continue
                    row = rows[split, image_id] = len(rows)
                which.append(row)
                labels.append(index[mid])
                verified = VERIFIED if sure > 0 else VERIFIED_ABSENT
                known.append(verified if kind == "human" else MACHINE)
        which_, labels_, known_ = np.array(which), np.array(labels), np.array(known)
        order = np.lexsort((known_, labels_, which_))
        which_, labels_, known_ = which_[order], labels_[order], known_[order]
        # The last of those of one photo and one label is the one that holds.
        last = np.ones(len(order), bool)
        last[:-1] = (which_[1:] != which_[:-1]) | (labels_[1:] != labels_[:-1])
        which_, labels_, known_ = which_[last], labels_[last], known_[last]
        starts = np.searchsorted(which_, np.arange(len(rows) + 1))
        for (split, image_id), row in rows.items():
            part = slice(starts[row], starts[row + 1])
            absent = known_[part] == VERIFIED_ABSENT
            yield (
                image_id,
                Record(
                    key=image_id,
                    image=self._here.find(image_id, split),
                    split=split,
                    present=tuple(labels_[part][~absent].tolist()),
                    absent=tuple(labels_[part][absent].tolist()),
                ),
            )

    def _boxes(self, found: Found, index: dict[str, int]) -> Iterator[tuple[str, Record]]:
        for _, split, path in self._tables("boxes"):
            for line, (image_id, mid, *sides) in read_rows(path, BOXES):
                if mid not in index:
                    found.notes["boxes of classes that are not read"] += 1
                    continue
                place = self._here.find(image_id, split)
                if place is None:
                    found.notes["boxes of photos that are not here"] += 1
                    continue
                left, right, top, bottom = (
                    number(side, path, line, name)
                    for side, name in zip(sides, BOXES[2:], strict=True)
                )
                yield (
                    image_id,
                    Record(
                        key=f"{image_id}#{line}",
                        image=place,
                        split=split,
                        group=image_id,
                        label=index[mid],
                        box=(left, top, right, bottom),
                    ),
                )

    def _narratives(self, found: Found) -> Iterator[tuple[str, Record]]:
        told: dict[tuple[str, str], list[str]] = {}
        for _, split, path in self._tables("narratives"):
            for _, one in read_json_lines(path, Narrative):
                if self._here.find(one.image_id, split) is None:
                    found.notes["narratives of photos that are not here"] += 1
                else:
                    told.setdefault((split, one.image_id), []).append(one.caption)
        for (split, image_id), captions in told.items():
            place = self._here.find(image_id, split)
            yield image_id, Record(image_id, place, tuple(captions), split)
