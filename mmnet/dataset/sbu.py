"""SBU captioned photos (Ordonez et al., NIPS 2011): a million addresses on Flickr, and captions."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar

import msgspec

from mmnet.data.downloaded import Downloaded, folders_of
from mmnet.data.files import lines, read_json
from mmnet.data.published import Drawn, Pictures
from mmnet.data.records import Found, Record
from mmnet.errors import UserError


ARCHIVE = "sbu-captions-all.json"
ADDRESSES, CAPTIONS = (f"SBU_captioned_photo_dataset_{what}.txt" for what in ("urls", "captions"))
FOLDERS = ("images", "dataset", ".")  # in which pictures are looked for


# What is read of the newer archive, by its own names: lists side by side.
class Archive(msgspec.Struct, gc=False):
    image_urls: list[str]
    captions: list[str]


@dataclass
class Sbu(Drawn, Pictures):
    """Photos with the captions of their owners, as far as they were downloaded.

    Reads the newer archive (sbu-captions-all.json) or the older one (two files of lines that
    belong together, in dataset/ or not). Pictures lie in images/, dataset/ or beside the files,
    named as their address is (as torchvision and the authors do), by its MD5 or by the number
    of the row. Addresses without a picture are left out and counted.

    Raises UserError when the files are malformed or not of one length, or no picture is there.
    """

    title: ClassVar[str] = "sbu"
    layouts: ClassVar[list[list[str]]] = [
        [ARCHIVE],
        [f"dataset/{ADDRESSES}", f"dataset/{CAPTIONS}"],
        [ADDRESSES, CAPTIONS],
    ]
    offers: ClassVar[tuple[str, ...]] = ("group", "match")

    def sources(self) -> list[Path]:
        files = [self.folder / part for part in self.layouts[self.layout]]
        return files + folders_of(self.folder, FOLDERS)

    def records(self, found: Found) -> Iterator[Record]:
        pictures = Downloaded(self.folder, FOLDERS, by=("row", "md5", "name"))
        for row, (url, caption) in enumerate(self._rows()):
            place = pictures.find(row, url)
            if place is None:
                found.notes["addresses without a picture"] += 1
            else:
                yield Record(key=url, image=place, captions=(caption,))

    def _rows(self) -> Iterator[tuple[str, str]]:
        files = [self.folder / part for part in self.layouts[self.layout]]
        if self.layout == 0:
            archive = read_json(files[0], Archive)
            urls, captions = iter(archive.image_urls), iter(archive.captions)
        else:
            urls, captions = (lines(path) for path in files)
        for number, (url, caption) in enumerate(zip_longest(urls, captions), 1):
            if url is None or caption is None:
                less = "addresses" if url is None else "captions"
                raise UserError(
                    f"{files[0]}: from row {number} on there are no {less}, so that captions and "
                    f"addresses do not belong together"
                )
            yield url, caption
