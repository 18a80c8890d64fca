"""Several datasets in one, each drawn by its weight."""

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmnet.bounds import Datasets, PositiveFloat, PositiveInt
from mmnet.data.lengths import Lengths, Numbers, lengths_of
from mmnet.data.order import Mixture
from mmnet.errors import UserError, refuse_other_names
from mmnet.interfaces import Names, Sample, Split, TextPrepare


# What a target's answers are called by, where that must be the same in all parts.
NAMED = {"label": "classes", "labels": "labels", "value": "unit"}


@dataclass
class Mix:
    """Datasets under names of their own. Of every thousand training samples each part has its
    share by `weights`, exactly, however many samples it holds; each goes through epochs of its
    own. An epoch of the mix is as many samples as all parts hold together. Evaluation reads all
    parts one behind the other.

    It offers what all parts offer. Bad samples are counted together, by the strictest of the
    parts' policies. num_classes and image_size are what other parts of the network ask the
    dataset for; null: they are not asked.

    Raises UserError unless `weights` names each part and nothing else, and where parts call what
    is learnt from by different names.
    """

    parts: Datasets
    weights: dict[str, PositiveFloat]
    num_classes: PositiveInt | None
    image_size: PositiveInt | None
    data: Path

    def __post_init__(self) -> None:
        refuse_other_names("dataset.weights", "part", self.weights, self.parts)
        made = list(self.parts.values())
        self.offers = tuple(
            target for target in made[0].offers if all(target in one.offers for one in made)
        )
        common = {
            field: getattr(made[0].names, field)
            for field in Names._fields
            if len({told(getattr(one.names, field)) for one in made}) == 1
        }
        self.names = Names(**common)
        strict = any(one.on_bad_sample == "fail" for one in made)
        self.on_bad_sample: Literal["skip", "fail"] = "fail" if strict else "skip"
        self.max_bad_fraction: float = min(one.max_bad_fraction for one in made)

    @staticmethod
    def check(parts: dict[str, Any], weights: dict[str, float], **_: Any) -> None:
        """Raises UserError."""
        refuse_other_names("dataset.weights", "part", weights, parts)
        for name, part in parts.items():
            if "parts" in part:
                raise UserError(
                    f"dataset.parts.{name} is made of parts itself: name them in dataset.parts"
                )

    def split(self, name: str, targets: tuple[str, ...]) -> "MixSplit":
        for target in targets:
            self._refuse_different(target)
        if "label" in targets and self.num_classes is not None:
            classes = len(self.names.classes)
            if classes and classes != self.num_classes:
                raise UserError(f"dataset.num_classes={self.num_classes}: the parts have {classes}")
        splits = {part: one.split(name, targets) for part, one in self.parts.items()}
        weights = [self.weights[part] for part in splits]
        return MixSplit(splits, weights if name == "train" else None)

    def _refuse_different(self, target: str) -> None:
        field = NAMED.get(target)
        if field is None:
            return
        (first, one), *others = self.parts.items()
        mine = getattr(one.names, field)
        for name, other in others:
            theirs = getattr(other.names, field)
            if told(mine) != told(theirs):
                raise UserError(
                    f"dataset.parts.{first} and dataset.parts.{name} cannot be mixed where "
                    f"{target} is learnt: {difference(field, mine, theirs)}"
                )


class MixSplit:
    """The samples of several splits, one behind the other."""

    def __init__(self, splits: dict[str, Split], weights: list[float] | None) -> None:
        self._names, self._splits = list(splits), list(splits.values())
        sizes = [len(split) for split in self._splits]
        self._starts = np.cumsum([0, *sizes])
        if weights is not None:
            self.mixture = Mixture(sizes, weights)
        said = [(name, split.digest) for name, split in splits.items()]
        self.digest = hashlib.sha256(repr([said, weights]).encode()).hexdigest()
        self.notes = {
            f"{name}: {what}": count
            for name, split in splits.items()
            for what, count in {"samples": len(split), **split.notes}.items()
        }

    def __len__(self) -> int:
        return int(self._starts[-1])

    def key(self, index: int) -> str:
        part, own = self._at(index)
        return f"{self._names[part]}: {self._splits[part].key(own)}"

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        part, own = self._at(index)
        sample = self._splits[part].sample(own, modalities, rng)
        if "group" in sample:  # those of two parts are not the same
            sample = {**sample, "group": sample["group"] * len(self._splits) + part}
        return sample

    def lengths(self, words: TextPrepare) -> Lengths:
        return MixLengths(self, [lengths_of(split, words) for split in self._splits])

    def _at(self, index: int) -> tuple[int, int]:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return part, index - int(self._starts[part])


class MixLengths:
    """Of all parts, one behind the other."""

    def __init__(self, split: MixSplit, lengths: list[Lengths]) -> None:
        self._split, self._lengths = split, lengths

    def __call__(self, index: int, rng: random.Random | None) -> int:
        part, own = self._split._at(index)
        return self._lengths[part](own, rng)

    def longest(self) -> Numbers:
        return np.concatenate([one.longest() for one in self._lengths])


def told(names: Any) -> Any:
    """Names to compare: a list and a tuple of the same are the same."""
    return names if isinstance(names, str) else tuple(names)


def difference(field: str, mine: Any, theirs: Any) -> str:
    """Where two lists of names part, or two units."""
    if isinstance(mine, str):
        return f"one has the unit {mine or 'none'}, the other {theirs or 'none'}"
    if len(mine) != len(theirs):
        return f"one has {len(mine)} {field}, the other {len(theirs)}"
    pairs = enumerate(zip(mine, theirs, strict=True))
    number, (one, other) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
    return f"of the {field} number {number} is {one} in one and {other} in the other"
