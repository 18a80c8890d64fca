"""Conceptual Captions 3M (Sharma et al., ACL 2018): pictures of the web and what is said there."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mmnet.data.conceptual import (
    OF_TRAIN,
    OF_VALIDATION,
    TRAIN,
    VALIDATION,
    folders,
    pictured,
    the_file,
)
from mmnet.data.published import Pictures, Splits
from mmnet.data.records import Found, Record


@dataclass
class Cc3m(Splits, Pictures):
    """CC3M: pictures of the web with their alternative texts, as far as they were downloaded.

    Reads Train_GCC-training.tsv and Validation_GCC-1.1.0-Validation.tsv, or one of them, under
    their several names, in either order of the columns. Pictures are named by the MD5 of their
    address or by the number of their row from 0, in train/ (or training/) and val/ (or
    validation/), which may be within images/. In images/ itself or beside the files a number
    says something only where there is but one file. Addresses without a picture are left out
    and counted.

    Raises UserError when a file is malformed.
    """

    title: ClassVar[str] = "cc3m"
    layouts: ClassVar[list[list[str]]] = [[TRAIN, VALIDATION], [TRAIN], [VALIDATION]]
    offers: ClassVar[tuple[str, ...]] = ("group", "match")

    def sources(self) -> list[Path]:
        files = [the_file(self.folder, part) for part in (TRAIN, VALIDATION)]
        return [*filter(None, files), *folders(self.folder, OF_TRAIN + OF_VALIDATION)]

    def records(self, found: Found) -> Iterator[Record]:
        for split, part, own in (
            ("train", TRAIN, OF_TRAIN),
            ("val", VALIDATION, OF_VALIDATION),
        ):
            for key, row, place in pictured(self.folder, part, own, found):
                yield Record(
                    key=f"{split}/{key}", image=place, captions=(row.caption,), split=split
                )
