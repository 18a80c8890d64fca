"""How long samples are once tokenized, known before they are read: measured once and kept."""

import hashlib
import os
import random
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from mmnet.data.records import Table, cache_folders
from mmnet.data.text import clean_caption
from mmnet.interfaces import BadSample, Split, TextPrepare


VERSION = 1  # of what is kept
AT_ONCE = 10_000  # texts that are measured together

Numbers = npt.NDArray[np.int32]


class Lengths(Protocol):
    """Of the samples of a split, in tokens, special ones included; 0: without a text, or bad."""

    def __call__(self, index: int, rng: random.Random | None) -> int:
        """Of the text that `sample(index, ..., rng)` shows."""

    def longest(self) -> Numbers:
        """Of each sample, the longest text that it may show."""


def lengths_of(split: Split, words: TextPrepare) -> Lengths:
    """Known by the split itself (its method `lengths`), or found by reading its texts."""
    own: Callable[[TextPrepare], Lengths] | None = getattr(split, "lengths", None)
    return own(words) if own is not None else _ByReading(split, words)


class OfSome:
    """Of those samples of a split that have these numbers."""

    def __init__(self, lengths: Lengths, numbers: Sequence[int]) -> None:
        self._lengths, self._numbers = lengths, numbers

    def __call__(self, index: int, rng: random.Random | None) -> int:
        return self._lengths(self._numbers[index], rng)

    def longest(self) -> Numbers:
        found: Numbers = self._lengths.longest()[np.asarray(self._numbers)]
        return found


def measured(table: Table, words: TextPrepare) -> Numbers:
    """The length of every caption of a table, one record's behind the other's.

    Kept in the cache by what the table holds and what the lengths depend on.
    """
    key = hashlib.sha256(f"{VERSION} {table.digest} {words.digest}".encode()).hexdigest()[:20]
    for folder in cache_folders():
        path = folder / f"lengths-{key}.npy"
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
        except (OSError, ValueError):
            pass
    found = np.fromiter(chain.from_iterable(_measured(table, words)), np.int32)
    for folder in cache_folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=folder, prefix=".lengths-")
        except OSError:
            continue
        with os.fdopen(handle, "wb") as file:
            np.save(file, found, allow_pickle=False)
        Path(part).replace(folder / f"lengths-{key}.npy")
        break
    return found


def _measured(table: Table, words: TextPrepare) -> Iterable[list[int]]:
    # Shown where it takes more than a moment, and where somebody looks.
    rows = tqdm(
        range(len(table)), "measuring texts", unit=" samples", delay=3, disable=None, leave=False
    )
    captions = chain.from_iterable(map(table.captions, rows))
    while some := list(islice(captions, AT_ONCE)):
        yield lengths(words, some)


def lengths(words: TextPrepare, captions: Sequence[str]) -> list[int]:
    """As they stand in the files; 0: nothing is left of it."""
    cleaned = []
    for caption in captions:
        try:
            cleaned.append(clean_caption(caption, ""))
        except BadSample:
            cleaned.append("")
    found = words.lengths(cleaned)
    return [length if text else 0 for text, length in zip(cleaned, found, strict=True)]


class _ByReading:
    def __init__(self, split: Split, words: TextPrepare) -> None:
        self._split, self._words = split, words

    def __call__(self, index: int, rng: random.Random | None) -> int:
        try:
            sample = self._split.sample(index, ("text",), rng)
        except BadSample:
            return 0
        return self._words.lengths([sample["text"]])[0] if "text" in sample else 0

    def longest(self) -> Numbers:
        """Of the text that evaluation shows."""
        return np.array([self(index, None) for index in range(len(self._split))], np.int32)
