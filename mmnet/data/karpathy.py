"""Karpathy and Fei-Fei's splits (arXiv 1412.2306): dataset_coco.json, dataset_flickr30k.json."""

from pathlib import Path

import msgspec

from mmnet.data.files import is_bare, read_json
from mmnet.errors import UserError, nearest


SPLITS = ("train", "restval", "val", "test")


# What is read of the file, by its own names.
class Sentence(msgspec.Struct, gc=False):
    raw: str


class Photo(msgspec.Struct, gc=False):
    filename: str
    split: str
    sentences: list[Sentence]
    filepath: str = ""  # the folder, in dataset_coco.json
    cocoid: int | None = None

    def captions(self) -> tuple[str, ...]:
        """Each once, in their order."""
        return tuple(dict.fromkeys(sentence.raw for sentence in self.sentences))


class Photos(msgspec.Struct):
    images: list[Photo]


def read_karpathy(path: Path) -> list[Photo]:
    """The photos in the order of the file. Raises UserError naming it and the photo."""
    photos = read_json(path, Photos).images
    seen: set[str] = set()
    for number, photo in enumerate(photos):
        at = f"{path}: images[{number}]"
        if photo.split not in SPLITS:
            raise UserError(
                f"{at} has split {photo.split!r}, expected one of {', '.join(SPLITS)}"
                f"{nearest(photo.split, SPLITS)}"
            )
        if not is_bare(photo.filename):
            raise UserError(f"{at} has filename {photo.filename!r}, expected a file's bare name")
        if photo.filepath and not is_bare(photo.filepath):
            raise UserError(f"{at} has filepath {photo.filepath!r}, expected a folder's bare name")
        if photo.filename in seen:
            raise UserError(f"{at}: {photo.filename} is there twice")
        seen.add(photo.filename)
    return photos
