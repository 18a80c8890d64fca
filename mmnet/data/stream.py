"""Samples that can only be read from the beginning: taken by the training process, handed on."""

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple, Protocol

from mmnet.interfaces import Sample, Split


class Raw(NamedTuple):
    """One sample as it came, undecoded."""

    epoch: int
    number: int  # in the order of the source, from 0 in each epoch
    key: str
    parts: dict[str, bytes]


class Streamed(Protocol):
    """What a split has beside its length, digest and notes that comes by stream."""

    def stream(self, seed: int, position: int) -> Iterator[Raw]:
        """What stands at `position` of the endless sequence, and all that follows.

        Raises UserError where the source fails.
        """

    def decode(self, raw: Raw, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        """Raises BadSample."""


def streamed(split: Split) -> Streamed | None:
    """The split, if it is one of these."""
    found: Any = split
    return found if hasattr(split, "stream") else None


def filled(raws: Iterator[Raw], position: int, slices: Iterator[range]) -> Iterator[list[Raw]]:
    """What stands in each slice of positions; what lies between slices is others' and passed over.

    `raws` begins at `position`.
    """
    for positions in slices:
        between = positions.start - position
        yield list(islice(raws, between, between + len(positions)))
        position = positions.stop


class Held:
    """The samples of one slice as a split."""

    def __init__(self, source: Any, raws: list[Raw]) -> None:
        self._source, self._raws = source, raws

    def key(self, index: int) -> str:
        return self._raws[index].key

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        sample: Sample = self._source.decode(self._raws[index], modalities, rng)
        return sample
