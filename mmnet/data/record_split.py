"""Some records of a dataset as the samples of a split: targets, which caption, which picture."""

import hashlib
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmnet.data.lengths import Lengths, Numbers, measured
from mmnet.data.pairs import another, fits
from mmnet.data.records import Record, Table
from mmnet.data.text import clean_caption, gist
from mmnet.interfaces import Sample, TextPrepare


if TYPE_CHECKING:
    from mmnet.data.published import Published


class Shown(NamedTuple):
    """A text: the number of its record, and which of the record's captions it is."""

    row: int
    caption: int


class RecordSplit:
    """Some of a dataset's records.

    Of several captions training draws one, and evaluation takes the first; where texts are told
    apart by what they belong to (group), it takes each in turn.
    """

    def __init__(
        self,
        dataset: "Published",
        name: str,
        rows: npt.NDArray[np.int64],
        targets: tuple[str, ...],
        notes: dict[str, int],
    ) -> None:
        self._dataset, self._table, self._targets = dataset, dataset.table, targets
        self._num_labels = len(dataset.names.labels)
        self._each = name != "train" and "group" in targets
        self.rows = rows  # the record of each sample
        self._which: npt.NDArray[np.int64] | None = None  # caption of each sample, where each is
        if self._each:
            times = np.maximum(1, np.diff(self._table.caption_starts())[rows])
            self.rows = np.repeat(rows, times)
            starts = np.cumsum(times) - times
            self._which = np.arange(len(self.rows)) - np.repeat(starts, times)
        self._all = rows  # one of each record
        told = hashlib.sha256(f"{self._table.digest} {targets}".encode())
        told.update(self.rows.tobytes())
        self.digest = told.hexdigest()
        self.notes = notes

    def __len__(self) -> int:
        return len(self.rows)

    def key(self, index: int) -> str:
        key = self._table.key(int(self.rows[index]))
        return key if self._which is None else f"{key}#{self._which[index]}"

    def texts(self, index: int) -> Sequence[str]:
        """What `sample` chooses the text from, as it stands in the files."""
        captions = self._table.captions(int(self.rows[index]))
        return captions if self._which is None else [captions[int(self._which[index])]]

    def sample(self, index: int, modalities: tuple[str, ...], rng: random.Random | None) -> Sample:
        row = int(self.rows[index])
        record = self._table[row]
        sample: Sample = {}
        # Drawn whether the text is asked for or not, so that crops do not depend on that.
        shown = self.shown(index, rng)
        if "match" in self._targets:
            sample["match"] = int(shown is None or shown.row == row)
        self._add_targets(sample, record, row)
        if "text" in modalities and shown is not None:
            captions = record.captions if shown.row == row else self._table.captions(shown.row)
            sample["text"] = clean_caption(captions[shown.caption], self.key(index))
        if "image" in modalities and record.image is not None:
            pictures: Any = self._dataset
            key, text = self.key(index), sample.get("text")
            sample["image"] = pictures.view(record.image, key, record, rng, text)
        return sample

    def shown(self, index: int, rng: random.Random | None) -> Shown | None:
        """Where the text of a sample stands; None where it has none. The first that `rng` draws."""
        row = int(self.rows[index])
        own = self._caption(index, row, rng)
        if "match" not in self._targets or fits(index, rng):
            return own
        return self._of_another(row, rng) or own

    def lengths(self, words: TextPrepare) -> Lengths:
        return RecordLengths(self, self._table, measured(self._table, words))

    def _caption(self, index: int, row: int, rng: random.Random | None) -> Shown | None:
        count = len(self._table.captions(row))
        if count == 0:
            return None
        if self._which is not None:
            return Shown(row, int(self._which[index]))
        return Shown(row, 0 if rng is None else rng.randrange(count))

    def _add_targets(self, sample: Sample, record: Record, row: int) -> None:
        for target in self._targets:
            match target:
                case "label":
                    assert record.label is not None  # or it would not be in this split
                    sample["label"] = record.label
                case "labels":
                    sample["labels"] = self._labels(record)
                case "value":
                    assert record.value is not None
                    sample["value"] = record.value
                case "group":
                    sample["group"] = int(np.searchsorted(self._all, row))

    def _labels(self, record: Record) -> Sequence[float]:
        """1 for those that hold, 0 for those that do not, NaN where nobody knows."""
        held = np.full(self._num_labels, self._dataset.unsaid, np.float32)
        held[list(record.absent or ())] = 0
        held[list(record.present or ())] = 1
        found: list[float] = held.tolist()
        return found

    def _of_another(self, row: int, rng: random.Random | None) -> Shown | None:
        """A caption of another sample that shares none with this one; None if all do."""
        own = {gist(caption) for caption in self._table.captions(row)}
        place = int(np.searchsorted(self._all, row))

        def shares(other: int) -> bool:
            captions = self._table.captions(int(self._all[other]))
            return not captions or any(gist(caption) in own for caption in captions)

        other = another(place, len(self._all), rng, shares)
        if other is None:
            return None
        found = int(self._all[other])
        count = len(self._table.captions(found))
        return Shown(found, place % count if rng is None else rng.randrange(count))


class RecordLengths:
    """Of the texts of records; `kept` holds those of all captions, see data.lengths."""

    def __init__(self, split: RecordSplit, table: Table, kept: Numbers) -> None:
        self._split, self._kept = split, kept
        self._starts = table.caption_starts()

    def __call__(self, index: int, rng: random.Random | None) -> int:
        shown = self._split.shown(index, rng)
        return 0 if shown is None else int(self._kept[self._starts[shown.row] + shown.caption])

    def longest(self) -> Numbers:
        found = np.zeros(len(self._starts), np.int32)
        filled = np.flatnonzero(np.diff(self._starts))
        if len(filled):
            found[filled] = np.maximum.reduceat(self._kept, self._starts[filled])
        return found[self._split.rows]
