"""The labelled subset of Conceptual Captions 3M (Sharma et al., ACL 2018)."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmnet.bounds import PositiveInt
from mmnet.data.conceptual import LABELLED, OF_TRAIN, TRAIN, Row, folders, pictured, the_file
from mmnet.data.frequent import most_frequent
from mmnet.data.published import Drawn, Pictures
from mmnet.data.records import Found, Record
from mmnet.interfaces import Names


@dataclass
class Cc3mLabels(Drawn, Pictures):
    """The training rows of CC3M that have labels, given by a classifier of Google's.

    Reads Image_Labels_Subset_Train_GCC-Labels-training.tsv. Labels are the `num_classes` names
    that most of the pictures at hand have, the most frequent first. A label that the classifier
    does not give counts as absent. Rows without labels are left out and counted. No row of the
    published validation has labels, so that val is drawn.

    Pictures are where `Cc3m` looks for those of training; numbers are rows of this file, and say
    nothing where the training file itself is beside it.

    Raises UserError when the file is malformed or has fewer labels.
    """

    num_classes: PositiveInt

    title: ClassVar[str] = "cc3m_labels"
    layouts: ClassVar[list[list[str]]] = [[LABELLED]]
    offers: ClassVar[tuple[str, ...]] = ("labels", "group", "match")

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"num_classes": self.num_classes}

    def sources(self) -> list[Path]:
        file = the_file(self.folder, LABELLED)
        return [*filter(None, [file]), *folders(self.folder, OF_TRAIN)]

    def records(self, found: Found) -> Iterator[Record]:
        counts: Counter[str] = Counter()
        for _, row, _ in self._rows(Found.nothing()):
            counts.update(row.labels or ())
        names = most_frequent(counts, self.num_classes, f"labels of the pictures in {self.folder}")
        found.names.append(Names(labels=names))
        number = {name: place for place, name in enumerate(names)}
        for key, row, place in self._rows(found):
            if row.labels is None:
                found.notes["rows without labels"] += 1
                continue
            present = tuple(sorted(number[name] for name in row.labels if name in number))
            yield Record(
                key=key, image=place, captions=(row.caption,), group=row.url, present=present
            )

    def _rows(self, found: Found) -> Iterator[tuple[str, Row, str]]:
        numbered = the_file(self.folder, TRAIN) is None
        yield from pictured(self.folder, LABELLED, OF_TRAIN if numbered else (), found)
