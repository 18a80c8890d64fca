"""Several texts in one sample, as many as fit (FULL-SENTENCES of RoBERTa, arXiv 1907.11692)."""

import hashlib
import itertools
import random

import numpy as np

from mmnet.data.lengths import Numbers, lengths_of
from mmnet.data.order import Mixture
from mmnet.interfaces import Sample, Split, TextPrepare


class Packed:
    """A split of texts, those that follow one another joined by a blank while they fit.

    Which belong together depends on their lengths alone; of a sample with several texts, on its
    longest. A text that is too long, or that cannot be read, stays by itself. A tokenizer that
    reads a word otherwise behind a blank may need a token more than was counted: it is cut.
    Notes: how many texts, and how many of 100 places for tokens are taken.
    """

    def __init__(self, split: Split, words: TextPrepare, max_length: int) -> None:
        self._split = split
        found = lengths_of(split, words).longest()
        empty, one, two = words.lengths(["", "a", "a a"])
        joint = two - 2 * one + empty  # what a blank costs
        mixture: Mixture | None = getattr(split, "mixture", None)
        sizes = [len(split)] if mixture is None else mixture.sizes
        borders = [0, *itertools.accumulate(sizes)]
        # One part of a mixture after the other, so that no sample is of two.
        packs = [
            start + packed(found[start:stop] - empty, joint, max_length - empty)
            for start, stop in itertools.pairwise(borders)
        ]
        self._starts = np.concatenate([*packs, [len(split)]])
        if mixture is not None:
            self.mixture = Mixture([len(one) for one in packs], mixture.weights)
        told = hashlib.sha256(f"{split.digest} packed".encode())
        told.update(self._starts.astype("<i8").tobytes())
        self.digest = told.hexdigest()
        real = int(found.sum()) - (len(split) - len(self)) * (empty - joint)
        fill = round(100 * real / (len(self) * max_length)) if len(self) else 0
        self.notes = {
            **split.notes,
            "texts packed": len(split),
            "packed: places taken of 100": fill,
        }

    def __len__(self) -> int:
        return len(self._starts) - 1

    def key(self, index: int) -> str:
        first, *rest = self._members(index)
        key = self._split.key(first)
        return f"{key} and {len(rest)} more" if rest else key

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        found = [self._split.sample(one, ("text",), rng) for one in self._members(index)]
        texts = [one["text"] for one in found if "text" in one]
        return {"text": " ".join(texts)} if texts else {}

    def _members(self, index: int) -> range:
        return range(int(self._starts[index]), int(self._starts[index + 1]))


def packed(lengths: Numbers, joint: int, room: int) -> Numbers:
    """Where each pack begins: texts of these lengths, `joint` between two, in `room` at most.

    A length of 0 or less is a text that cannot be read.
    """
    wide = np.where(lengths > 0, lengths + joint, room + joint + 1).astype(np.int64)
    ends = np.cumsum(wide)
    starts, start, before = [], 0, 0
    while start < len(lengths):
        starts.append(start)
        stop = int(np.searchsorted(ends, before + room + joint, side="right"))
        start = max(stop, start + 1)
        before = int(ends[start - 1])
    return np.array(starts, np.int32)
