"""A dataset in ten lines: a class that says what its samples are, and nothing else."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmnet.data.files import inside
from mmnet.data.members import captions_of, number_of, strings_of
from mmnet.data.own import Classes, Own
from mmnet.data.records import Found, Record
from mmnet.errors import UserError, nearest
from mmnet.interfaces import Names


KEYS = ("image_path", "caption", "label", "labels", "value", "split", "group")


@dataclass
class MultiModalDataset(Own):
    """To be derived from: `samples` is all there is to write.

    Pictures lie in the folder of `root`, or of paths.data. `samples` runs at every start, so
    that the table in the cache is never older than what it says.
    """

    title: ClassVar[str] = "own"
    layouts: ClassVar[list[list[str]]] = [["*"]]  # any folder that is not empty

    def samples(self) -> Iterable[Mapping[str, Any]]:
        """A dict for each sample, of any of KEYS.

        image_path: below `self.folder`. caption: a text, or a list of them. label: a whole
        number or a name. labels: a list of names. value: a number. split: "train", "val", ...
        group: what keeps samples on one side of a split that is drawn; the picture, by default.
        """
        raise NotImplementedError

    def sources(self) -> list[Path]:
        return []

    def settings(self) -> dict[str, Any]:
        told = hashlib.sha256()
        for sample in self.samples():
            told.update(ascii(sorted(sample.items())).encode())
        return {
            "folder": str(self.folder),
            "samples": told.hexdigest(),
            "num_classes": self.num_classes,
        }

    def missing(self, target: str) -> str:
        return f"samples() may say it, under '{target}'"

    def records(self, found: Found) -> Iterator[Record]:
        classes = Classes(self._named("label")).at_least(self.num_classes)
        labels = Classes(one for cell in self._named("labels") for one in strings_of(cell))
        found.names.append(Names(classes=classes.names, labels=labels.names))
        for number, sample in enumerate(self.samples()):
            self._check(sample, number)
            image, label = sample.get("image_path"), sample.get("label")
            captions = captions_of(sample.get("caption"))
            if image is None and not captions:
                found.notes["samples without a picture and a text"] += 1
                continue
            places = (labels(one) for one in strings_of(sample.get("labels")))
            yield Record(
                key=str(number),
                image=None if image is None else str(image),
                captions=captions,
                split=sample.get("split") or "",
                group=str(sample.get("group") or image or captions[0]),
                label=None if label is None else classes(label),
                present=(
                    tuple(sorted({one for one in places if one is not None}))
                    if "labels" in sample
                    else None
                ),
                value=number_of(sample.get("value")),
            )

    def _named(self, key: str) -> Iterator[Any]:
        return (one for sample in self.samples() if (one := sample.get(key)) is not None)

    def _check(self, sample: Mapping[str, Any], number: int) -> None:
        where = f"{type(self).__name__}.samples, sample {number}"
        for key in sample:
            if key not in KEYS:
                raise UserError(
                    f"{where}: no '{key}' is known{nearest(key, KEYS)}; there are {', '.join(KEYS)}"
                )
        image = sample.get("image_path")
        if image is not None and not inside(Path(image).as_posix()):
            raise UserError(f"{where}: {image} leads out of {self.folder}")
