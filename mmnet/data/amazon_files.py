"""The files of Amazon's product data (Ni et al., EMNLP 2019): products, reviews, addresses."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mmnet.data.files import DAMAGE, opened, read_json_lines
from mmnet.data.html import shown


THUMBNAIL = re.compile(r"\._[^/]*(?=\.\w+$)")  # 51Iph04Jy3L._SX38_SY50_CR,0,0,38,50_.jpg
LONGEST = 1_000_000  # bytes of a line that is looked at to know the format
IMAGE_TEXT = re.compile(r"""<img\b[^>]*\balt=(["'])(.*?)\1""", re.IGNORECASE | re.DOTALL)


# What is read of a line, by its own names; what is sometimes a list and sometimes not (rank), or
# a style sheet (price), is not read.
class Meta(msgspec.Struct, gc=False):
    asin: str
    title: str | None = ""
    description: list[str] | str | None = ""
    main_cat: str | None = None
    category: list[str] = []
    image: list[str] | str | None = None  # before May 2021
    imageURL: list[str] | str | None = None  # since then, both
    imageURLHighRes: list[str] | str | None = None


class Review(msgspec.Struct, gc=False):
    asin: str
    overall: float
    reviewText: str | None = ""
    vote: str | int | None = None  # "1,204"
    image: list[str] | str | None = None


class Product(NamedTuple):
    """What a line of metadata says."""

    asin: str
    title: str
    description: str
    category: str  # "": it has none
    department: str  # the category below the first; "": it has none
    pictures: tuple[str, ...]  # addresses as they stand there


def products(path: Path) -> Iterator[Product]:
    """Of each line, in order; an asin may be there again. Raises UserError naming the line."""
    for _, meta in read_json_lines(path, Meta):
        described = meta.description or ""
        yield Product(
            meta.asin,
            shown(meta.title or ""),
            shown(" ".join(described) if isinstance(described, list) else described),
            category_of(meta),
            shown(meta.category[1]) if len(meta.category) > 1 else "",
            listed(meta.imageURLHighRes) + listed(meta.imageURL) + listed(meta.image),
        )


def reviews(path: Path) -> Iterator[tuple[int, Review]]:
    """(line, review), its text as `shown`. Raises UserError naming the line."""
    for number, review in read_json_lines(path, Review):
        review.reviewText = shown(review.reviewText or "")
        yield number, review


def category_of(meta: Meta) -> str:
    """Its main category, of which some lines have but a picture with a name; else the first."""
    told = meta.main_cat or ""
    if (named := IMAGE_TEXT.search(told)) is not None:
        told = named[2]
    return shown(told) or shown(meta.category[0] if meta.category else "")


def votes(vote: str | int | None) -> int:
    """How many found a review helpful: a word with separators, or none."""
    digits = re.sub(r"\D", "", str(vote or ""))
    return int(digits) if digits else 0


def listed(told: list[str] | str | None) -> tuple[str, ...]:
    """Of one address, several or none."""
    return tuple(url for url in (told if isinstance(told, list) else [told]) if url)


def full_size(url: str) -> str:
    """The address of the picture of which `url` may be a thumbnail."""
    return THUMBNAIL.sub("", url)


def first_line(path: Path) -> dict[str, Any]:
    """What the first line of a file says; nothing, where it is no JSON object."""
    try:
        with opened(path) as file:
            return msgspec.json.decode(file.readline(LONGEST), type=dict[str, Any])
    except (*DAMAGE, msgspec.MsgspecError, ValueError):
        return {}
