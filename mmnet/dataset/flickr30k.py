"""Flickr30k (Young et al., TACL 2014): photos with five captions each, in its three layouts."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec

from mmnet.data.archive import Archive
from mmnet.data.files import is_bare, lines, read_csv
from mmnet.data.flickr_splits import KARPATHY, Families, families, read_unrelated
from mmnet.data.karpathy import read_karpathy
from mmnet.data.published import Pictures, Splits
from mmnet.data.records import Found, Record
from mmnet.errors import UserError


TOKENS, TABLE, HUB = "results_20130124.token", "results.csv", "flickr_annotations_30k.csv"
# Where photos may be, below the root: of the original, of Kaggle's, which is nested in itself.
FOLDERS = ("flickr30k-images", "flickr30k_images/flickr30k_images", "flickr30k_images", "images")
ZIP = "flickr30k-images.zip"
HEADER = "image_name| comment_number| comment"
# In one published row the second bar is missing.
BARLESS = re.compile(r"\s*(\d+)\s+(\S.*)")

Captions = dict[str, dict[int, str]]  # by photo and number, from 0


@dataclass
class Flickr30k(Splits, Pictures):
    """Photos, each with the captions of five people.

    Reads the original (results_20130124.token), Kaggle's (results.csv, in flickr30k_images/ or
    not), the hub's (flickr_annotations_30k.csv), or Karpathy's dataset_flickr30k.json alone.
    Photos lie in flickr30k-images/, in flickr30k_images/ (which Kaggle nests in itself), in
    images/, or in flickr30k-images.zip, from which they are read as it is.

    splits: whose. "karpathy" (29,000, 1,014 and 1,000 photos) are those of the hub's layout, of
    dataset_flickr30k.json, or of lists of names that end in .jpg; "entities" (29,783, 1,000 and
    1,000) those of lists of names that do not. A list is a .txt file that has train, val or test
    in its name and nothing but names of photos in it, in the root or a folder of it. The two are
    never mixed: a third of one's evaluation is in the other's training.

    drop_unrelated: leave out the captions that UNRELATED_CAPTIONS, which comes with the
    Entities, says not to be of their photo.

    Raises UserError when the files are malformed, or say nothing of the splits asked for.
    """

    splits: Literal["karpathy", "entities"]
    drop_unrelated: bool

    title: ClassVar[str] = "flickr30k"
    layouts: ClassVar[list[list[str]]] = [
        [TOKENS],
        [f"flickr30k_images/{TABLE}"],
        [HUB],
        [TABLE],
        [KARPATHY],
    ]
    offers: ClassVar[tuple[str, ...]] = ("group", "match")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._folder, self._zip = self._photos()

    @classmethod
    def accepts(cls, folder: Path) -> bool:
        others = any((folder / name).exists() for [name] in cls.layouts if name != TABLE)
        return others or next(lines(folder / TABLE), "").strip() == HEADER

    def picture(self, place: str) -> Path | bytes:
        if self._zip is not None:
            archive, members = self._zip
            return archive.read(members.get(place, place))
        return self.folder / self._folder / place

    def _photos(self) -> tuple[str, tuple[Archive, dict[str, str]] | None]:
        """The folder that has photos, or else the archive with the path in it of each."""
        for folder in (*FOLDERS, "."):
            if next((self.folder / folder).glob("*.jpg"), None) is not None:
                return folder, None
        if not (self.folder / ZIP).exists():
            return FOLDERS[0], None
        archive = Archive(self.folder / ZIP)
        paths = (path for path in archive.members if not path.startswith("__MACOSX/"))
        return "", (archive, {path.rpartition("/")[2]: path for path in paths})

    # Its files

    def settings(self) -> dict[str, Any]:
        return super().settings() | {
            "splits": self.splits,
            "drop_unrelated": self.drop_unrelated,
        }

    def sources(self) -> list[Path]:
        known = self._families()
        lists = [path for path, _ in known.listed]
        return [self._table(), *lists, *known.unrelated]

    def records(self, found: Found) -> Iterator[Record]:
        captions, split_of = self._read(found)
        known = self._families()
        split_of = known.splits(self.splits, split_of, self.folder)
        unrelated = set()
        if self.drop_unrelated:
            unrelated = {pair for path in known.unrelated for pair in read_unrelated(path)}
        found.notes["photos of the splits without captions"] = len(
            split_of.keys() - captions.keys()
        )
        for name, numbered in captions.items():
            if name not in split_of:
                found.notes[f"photos in none of the {self.splits} splits"] += 1
                continue
            of_photo = sorted(numbered.items())
            kept = tuple(text for number, text in of_photo if (name, number) not in unrelated)
            found.notes["captions left out as unrelated to their photo"] += len(of_photo) - len(
                kept
            )
            if kept:
                yield Record(key=name, image=name, captions=kept, split=split_of[name])

    def _table(self) -> Path:
        return self.folder / self.layouts[self.layout][0]

    def _families(self) -> Families:
        return families(self.folder, {*FOLDERS})

    def _read(self, found: Found) -> tuple[Captions, dict[str, str]]:
        """The captions; and Karpathy's split of each photo, where the file says it."""
        path = self._table()
        if path.name == HUB:
            return read_hub(path)
        if path.name == KARPATHY:
            photos = read_karpathy(path)
            texts = {photo.filename: dict(enumerate(photo.captions())) for photo in photos}
            return texts, {photo.filename: photo.split for photo in photos}
        captions: Captions = {}
        rows = read_tokens(path) if path.name == TOKENS else read_table(path, found)
        for line, name, number, text in rows:
            if not is_bare(name):
                raise UserError(f"{path}, line {line}: {name!r} is no file's bare name")
            of_photo = captions.setdefault(name, {})
            if number in of_photo:
                raise UserError(f"{path}, line {line}: caption {number} of {name} is there twice")
            of_photo[number] = text
        return captions, {}


Row = tuple[int, str, int, str]  # line, photo, number of the caption, caption


def read_tokens(path: Path) -> Iterator[Row]:
    """Lines `1000092795.jpg#0<TAB>Two young guys ...`. Raises UserError."""
    for line, text in enumerate(lines(path), 1):
        if not text.strip():
            continue
        head, tab, caption = text.partition("\t")
        name, mark, number = head.rpartition("#")
        if not (tab and mark and number.strip().isdecimal()):
            raise UserError(
                f"{path}, line {line}: {text[:60]!r}, expected <photo>#<number><TAB><caption>"
            )
        yield line, name.strip(), int(number), caption


def read_table(path: Path, found: Found) -> Iterator[Row]:
    """Lines `1000092795.jpg| 0| Two young guys ...` below a header. Raises UserError."""
    for line, text in enumerate(lines(path), 1):
        if line == 1:
            if [field.strip() for field in text.split("|")] != HEADER.split("| "):
                raise UserError(f"{path}, line 1: {text[:60]!r}, expected {HEADER!r}")
            continue
        if not text.strip():
            continue
        name, *rest = text.split("|", 2)
        if len(rest) == 1 and (parts := BARLESS.fullmatch(rest[0])):
            found.notes["rows repaired: no bar between the number and the caption"] += 1
            rest = [parts[1], parts[2]]
        if len(rest) != 2 or not rest[0].strip().isdecimal():
            raise UserError(
                f"{path}, line {line}: {text[:60]!r}, expected <photo>| <number>| <caption>"
            )
        yield line, name.strip(), int(rest[0]), rest[1].strip()


def read_hub(path: Path) -> tuple[Captions, dict[str, str]]:
    """Rows `raw,sentids,split,filename,img_id`, raw being a list of captions in JSON."""
    captions: Captions = {}
    split_of: dict[str, str] = {}
    for line, row in read_csv(path, ("raw", "split", "filename")):
        name, split = row["filename"], row["split"]
        if not is_bare(name) or name in captions:
            said = "is there twice" if name in captions else "is no file's bare name"
            raise UserError(f"{path}, line {line}: filename {name!r} {said}")
        try:
            told = msgspec.json.decode(row["raw"], type=list[str])
        except (msgspec.MsgspecError, ValueError) as error:
            raise UserError(f"{path}, line {line}: raw is no list of captions: {error}") from error
        if split not in ("train", "val", "test"):
            raise UserError(f"{path}, line {line}: split {split!r}, expected train, val or test")
        captions[name], split_of[name] = dict(enumerate(told)), split
    return captions, split_of
