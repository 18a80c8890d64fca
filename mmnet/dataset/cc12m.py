"""Conceptual 12M (Changpinyo et al., arXiv 2102.08981): less strictly chosen than CC3M."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mmnet.data.conceptual import CC12M, OF_TRAIN, TRAIN, folders, pictured, the_file
from mmnet.data.published import Drawn, Pictures
from mmnet.data.records import Found, Record


@dataclass
class Cc12m(Drawn, Pictures):
    """CC12M: as CC3M, four times as many and less strictly chosen; published for training alone.

    Reads cc12m.tsv. Pictures are named by the MD5 of their address, or by the number of their row
    from 0, in images/, train/ or beside the file.

    Raises UserError when the file is malformed.
    """

    title: ClassVar[str] = "cc12m"
    layouts: ClassVar[list[list[str]]] = [[CC12M]]
    offers: ClassVar[tuple[str, ...]] = ("group", "match")

    def sources(self) -> list[Path]:
        return [*filter(None, [the_file(self.folder, CC12M)]), *folders(self.folder, OF_TRAIN)]

    def records(self, found: Found) -> Iterator[Record]:
        alone = the_file(self.folder, TRAIN) is None
        for key, row, place in pictured(self.folder, CC12M, OF_TRAIN if alone else (), found):
            yield Record(key=key, image=place, captions=(row.caption,), group=row.url)
