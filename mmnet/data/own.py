"""What a user's own data has in common: splits that it may name, classes that it may have."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mmnet.bounds import PositiveInt
from mmnet.data.published import Drawn, Pictures
from mmnet.data.record_split import RecordSplit
from mmnet.errors import UserError, nearest


# What a split is called that is for training, for evaluation, for neither; "": it is not said.
TRAIN, VAL, TEST = ("train", "training", ""), ("val", "validation", "valid", "dev"), ("test",)
WHOLE = re.compile(r"-?[0-9]{1,9}(\.0+)?")


@dataclass
class Own(Drawn, Pictures):
    """Data of which little is known beforehand.

    num_classes: of the label, when a head classifies; None: not asked.
    train_split, val_split: names of splits; None: train, and val, validation, valid or dev. Where
    no sample is in such a val split, val is drawn from the train split by hash.
    """

    num_classes: PositiveInt | None
    train_split: list[str] | None
    val_split: list[str] | None

    offers: ClassVar[tuple[str, ...]] = ("label", "labels", "value", "group", "match")

    def roles(self) -> Mapping[str, list[str]]:
        """The splits of train and val, where the data itself says."""
        return {}

    def missing(self, target: str) -> str:
        """What to do where no sample has a label, labels or value."""
        raise NotImplementedError

    def named_split(self, name: str) -> str:
        """Of a file or folder, as its name says (val-00001, data/validation); "": it says none."""
        named = {*TRAIN, *VAL, *TEST, *(self.train_split or ()), *(self.val_split or ())} - {""}
        stem = re.split(r"[-_.]\d|\.", Path(name).name)[0]
        words = re.split(r"[^A-Za-z]+|(?<=[a-z])(?=[A-Z])", name)
        return next((word for word in (stem, *reversed(words)) if word in named), "")

    def check_classes(self) -> None:
        """Not before something is to be classified."""

    def split(self, name: str, targets: tuple[str, ...]) -> RecordSplit:
        has = {"label": self.names.classes, "labels": self.names.labels, "value": self._valued}
        for target in targets:
            if target in has and not has[target]:
                raise UserError(
                    f"dataset={self.title}: no sample of {self.folder} has a {target}, which the "
                    f"head learns; {self.missing(target)}"
                )
        if "label" in targets:
            super().check_classes()
        return super().split(name, targets)

    def rows(self, name: str) -> npt.NDArray[np.int64]:
        counts = {
            entry["values"].as_py(): entry["counts"].as_py()
            for entry in pc.value_counts(self.table.column("split"))
        }
        train = self._asked("train", counts, TRAIN)
        if name == "train" and not train and counts:
            named = ", ".join(f"{split} ({count:,})" for split, count in counts.items())
            raise UserError(
                f"dataset.train_split=null: none of the splits of {self.folder} is called train; "
                f"it has {named}"
            )
        val = self._asked("val", counts, VAL)
        if name not in ("train", "val"):
            if name not in counts:
                raise UserError(
                    f"split {name}: {self.folder} has no such samples{nearest(name, counts)}"
                )
            return self._of([name])
        if val:
            return self._of(train if name == "train" else val)
        drawn = super().rows(name)
        if len(train) == len(counts):
            return drawn
        return drawn[np.isin(drawn, self._of(train), assume_unique=True)]

    @property
    def _valued(self) -> bool:
        column = self.table.column("value")
        return bool(column.null_count < len(column))

    def _asked(self, name: str, counts: Mapping[str, int], usual: Iterable[str]) -> list[str]:
        """Those splits of a role that there are."""
        asked = getattr(self, f"{name}_split")
        for split in asked or ():
            if split not in counts:
                there = ", ".join(f"{one or '(unnamed)'} ({n:,})" for one, n in counts.items())
                raise UserError(
                    f"dataset.{name}_split={split}: {self.folder} has no such samples"
                    f"{nearest(split, counts)}; it has {there or 'none'}"
                )
        if asked is not None:
            return list(asked)
        if name in self.roles():
            return [split for split in self.roles()[name] if split in counts]
        return [split for split in counts if split.lower() in usual]

    def _of(self, splits: list[str]) -> npt.NDArray[np.int64]:
        if len(self.table) == 0:
            return np.zeros(0, np.int64)
        chosen = pc.is_in(self.table.column("split"), pa.array(splits, pa.string()))
        return np.flatnonzero(chosen.to_numpy())


class Classes:
    """The classes that labels name: whole numbers as they are, words in the alphabet's order."""

    def __init__(self, found: Iterable[Any]) -> None:
        words: Counter[str] = Counter()
        highest, self.numbered = -1, True
        for label in found:
            words[str(label)] += 1
            number = whole_number(label)
            if number is None:
                self.numbered = False
            elif number > highest:
                highest = number
        # Numbers far apart are names (years, codes), not places in a list.
        self.numbered = self.numbered and highest < max(1000, 10 * len(words))
        names = [str(number) for number in range(highest + 1)] if self.numbered else sorted(words)
        self.names = names
        self._places = {name: place for place, name in enumerate(names)}

    @classmethod
    def named(cls, names: Iterable[str]) -> "Classes":
        """Classes that are named somewhere, and numbered where they are meant."""
        classes = cls(())
        classes.names = list(names)
        return classes

    def at_least(self, count: int | None) -> "Classes":
        """With the classes that no label names, where they are numbered."""
        if self.numbered and self.names and count is not None:
            self.names += [str(number) for number in range(len(self.names), count)]
        return self

    def __call__(self, label: Any) -> int | None:
        """The number of a label; None for one below 0, which says that there is none."""
        if self.numbered:
            number = whole_number(label)
            return None if number is None or not 0 <= number < len(self.names) else number
        return self._places.get(str(label))


def whole_number(label: Any) -> int | None:
    """A label as a number, if it is one: 3, 3.0, "3", "03" and "3.0" are 3."""
    if isinstance(label, bool):
        return int(label)
    if isinstance(label, int):
        return label
    if isinstance(label, float):
        return int(label) if label.is_integer() else None
    text = str(label).strip()
    return int(text.partition(".")[0]) if WHOLE.fullmatch(text) else None
