"""What Visual Genome's files say, whose keys have other names in versions 1.0, 1.2 and 1.4."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from mmnet.data.files import read_json, read_json_array
from mmnet.errors import UserError


IMAGES = "image_data.json"


# What is read of the files, by their own names. gc=False: millions of them, none in a cycle.
class Picture(msgspec.Struct, gc=False):
    width: int
    height: int
    url: str = ""
    image_id: int | None = None
    id: int | None = None  # 1.0
    coco_id: int | None = None


class Region(msgspec.Struct, gc=False):
    x: float
    y: float
    width: float
    height: float
    phrase: str
    region_id: int | None = None
    id: int | None = None  # 1.0

    def box(self, picture: Picture) -> tuple[float, float, float, float] | None:
        """Left, top, right, bottom in [0, 1], what is beyond the picture cut off; None: nothing
        is left of it."""
        if picture.width <= 0 or picture.height <= 0:
            return None
        left, right = (_within(at / picture.width) for at in (self.x, self.x + self.width))
        top, bottom = (_within(at / picture.height) for at in (self.y, self.y + self.height))
        return (left, top, right, bottom) if left < right and top < bottom else None


class Question(msgspec.Struct, gc=False):
    question: str
    answer: str
    qa_id: int


class Thing(msgspec.Struct, gc=False):
    names: list[str]


class OfImage(msgspec.Struct):
    """What all files have in common: one element an image."""

    image_id: int | None = None
    id: int | None = None


class Regions(OfImage, kw_only=True):
    regions: list[Region]


class Questions(OfImage, kw_only=True):
    qas: list[Question]


class Things(OfImage, kw_only=True):
    objects: list[Thing]


T = TypeVar("T", bound=OfImage)


def pictures(path: Path) -> dict[int, Picture]:
    """By their ids. Raises UserError."""
    found: dict[int, Picture] = {}
    for number, picture in enumerate(read_json(path, list[Picture])):
        id = picture.id if picture.image_id is None else picture.image_id
        if id is None:
            raise UserError(f"{path}, element {number}: neither image_id nor id")
        found[id] = picture
    return found


def by_image(path: Path, kind: type[T]) -> Iterator[tuple[int, T]]:
    """(image id, what the file says of it), one after the other. Raises UserError."""
    for number, found in read_json_array(path, kind):
        id = found.id if found.image_id is None else found.image_id
        if id is None:
            raise UserError(f"{path}, element {number}: neither image_id nor id")
        yield id, found


def _within(share: float) -> float:
    return min(1.0, max(0.0, share))
