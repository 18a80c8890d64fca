"""Cornell NLVR (Suhr et al., ACL 2017): is a sentence true of a picture of three boxes?"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from torch import Tensor

from mmnet.bounds import PositiveInt
from mmnet.data.files import check_root, read_json_lines
from mmnet.data.held_out import hashed
from mmnet.data.published import Drawn, Pictures
from mmnet.data.records import Found, Record
from mmnet.data.text import gist
from mmnet.errors import UserError
from mmnet.interfaces import Names


TRAINING = ["train/train.json", "train/images"]  # only the full release has them
PERMUTATIONS = 6  # pictures of one example: its boxes in every order


# What is read of a line, by its own names.
class Line(msgspec.Struct, gc=False):
    sentence: str
    label: Literal["true", "false"] | bool
    identifier: str
    directory: str | int


@dataclass
class Nlvr(Drawn, Pictures):
    """One sentence and one picture a sample; the label says whether the sentence is true of it.

    The authors' sentences are true more often than not, so that the majority is above one half
    (57 % of the development set).

    Where the folder holds train/ beside dev/, these are the splits. Otherwise the sentences of
    dev/ are divided by their hash, each with all of its pictures, so that no sentence is in both
    (nor one that differs in case, spacing or its full stop).

    An example has six pictures, its boxes in every order. Training draws one of them;
    evaluation takes always the same one, number `hash of the identifier` mod 6. Pictures are
    four times as wide as high and squeezed to a square, and never mirrored: sentences say left
    and right.

    Raises UserError when the files are malformed, or num_classes is not 2.
    """

    title: ClassVar[str] = "nlvr"
    layouts: ClassVar[list[list[str]]] = [["dev/dev.json", "dev/images"]]
    offers: ClassVar[tuple[str, ...]] = ("label",)
    mirrored: ClassVar[bool] = False

    num_classes: PositiveInt

    def sources(self) -> list[Path]:
        if self._published:
            check_root(self.title, self.folder, [[*self.layouts[0], *TRAINING]])
        return [self.folder / name / f"{name}.json" for name in self._folders]

    def records(self, found: Found) -> Iterator[Record]:
        found.names.append(Names(classes=("false", "true")))
        sentences: set[str] = set()
        for name, path in zip(self._folders, self.sources(), strict=True):
            for record in read_examples(path, name):
                sentences.add(record.group)
                yield record
        found.notes["sentences"] = len(sentences)

    def rows(self, name: str) -> npt.NDArray[np.int64]:
        if not self._published or name not in ("train", "val"):
            return super().rows(name)
        folder = "train" if name == "train" else "dev"
        return np.flatnonzero(pc.equal(self.table.column("split"), folder).to_numpy())

    def view(
        self,
        place: str,
        key: str,
        record: Record,
        rng: random.Random | None,
        text: str | None = None,
    ) -> Tensor:
        which = hashed(place) % PERMUTATIONS if rng is None else rng.randrange(PERMUTATIONS)
        return super().view(f"{place}-{which}.png", key, record, rng, text)

    @property
    def _published(self) -> bool:
        """Whether there are splits."""
        return (self.folder / "train").is_dir()

    @property
    def _folders(self) -> list[str]:
        return ["train", "dev"] if self._published else ["dev"]


def read_examples(path: Path, folder: str) -> Iterator[Record]:
    """The lines of a file. Raises UserError naming the line that is malformed or given twice."""
    lines: dict[str, int] = {}
    for number, line in read_json_lines(path, Line):
        directory = str(line.directory)
        for part in (directory, line.identifier):
            if "/" in part or "\\" in part or part in ("", ".", ".."):
                raise UserError(
                    f"{path}, line {number}: {part!r} is no part of a file's name; expected an "
                    f"identifier such as 2536-0 and a directory such as 0"
                )
        stem = f"{folder}/images/{directory}/{folder}-{line.identifier}"
        if (first := lines.setdefault(stem, number)) != number:
            raise UserError(
                f"{path}, line {number}: identifier {line.identifier} is also on line {first}"
            )
        yield Record(
            key=stem,
            image=stem,  # and a number
            captions=(line.sentence,),
            split=folder,
            group=gist(line.sentence),
            label=int(line.label in (True, "true")),
        )
