"""Amazon's product data of 2018 (Ni et al., EMNLP 2019): products, their pictures, reviews."""

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from mmnet.bounds import NonNegativeInt, PositiveInt
from mmnet.data.amazon_files import (
    Product,
    first_line,
    full_size,
    listed,
    products,
    reviews,
    votes,
)
from mmnet.data.downloaded import Downloaded, folders_of
from mmnet.data.published import Drawn, Pictures
from mmnet.data.records import Found, Record
from mmnet.errors import UserError
from mmnet.interfaces import Names


FOLDERS = ("images", ".")  # in which pictures are looked for
STARS = 5


class Known(NamedTuple):
    """What samples need of a product."""

    text: str
    category: str
    picture: str | None


@dataclass
class Amazon(Drawn, Pictures):
    """Products, or reviews of them, with the pictures that were downloaded.

    Reads the metadata (meta_<category>.json.gz, of both generations under that name) and the
    reviews (<category>.json.gz, or else <category>_5.json.gz) of all categories in a folder.

    text: title, description (the title, then the description) or review. label: rating (one
    star to five), category (the main one) or department (the one below it); the classes of the
    last two are those that the files name, in the order of the alphabet. With text=review or
    label=rating a sample is a review; otherwise it is a product. A product and its reviews are
    on one side of the split. HTML is taken out of texts, and entities are resolved; the summary
    of a review is not read, as it mostly says the rating.

    Pictures lie in images/ or beside the files, named as their address is, in full size or as
    a thumbnail, by its MD5, or by the product (asin). A review's own pictures come before the
    product's; the first that is there is taken. without_picture: keep, as samples of text alone,
    or leave_out. min_votes: of those that found a review helpful; with fewer it is left out.

    What is left out is counted. Raises UserError for a malformed line, naming it, when files
    that a setting needs are not there, or when num_classes is not the number of classes.
    """

    title: ClassVar[str] = "amazon"
    layouts: ClassVar[list[list[str]]] = [["meta_*.json*"], ["*.json.gz"]]
    offers: ClassVar[tuple[str, ...]] = ("label", "group", "match")

    text: Literal["title", "description", "review"]
    label: Literal["rating", "category", "department"]
    num_classes: PositiveInt
    min_votes: NonNegativeInt
    without_picture: Literal["keep", "leave_out"]

    @classmethod
    def accepts(cls, folder: Path) -> bool:
        return any("asin" in first_line(path) for path in files_of(folder, meta=True)) or any(
            {"asin", "overall"} <= first_line(path).keys() for path in files_of(folder, meta=False)
        )

    @property
    def of_reviews(self) -> bool:
        """Whether a sample is a review."""
        return self.text == "review" or self.label == "rating"

    def settings(self) -> dict[str, Any]:
        names = ("text", "label", "min_votes", "without_picture")
        return {**super().settings(), **{name: getattr(self, name) for name in names}}

    def sources(self) -> list[Path]:
        told = files_of(self.folder, meta=True)
        if not told and not (self.text == "review" and self.label == "rating"):
            raise UserError(
                f"dataset.text={self.text} and dataset.label={self.label} want metadata, such as "
                f"meta_All_Beauty.json.gz, and {self.folder} has none"
            )
        if self.of_reviews:
            written = files_of(self.folder, meta=False)
            if not written:
                what = "text=review" if self.text == "review" else "label=rating"
                raise UserError(
                    f"dataset.{what} wants reviews, such as All_Beauty_5.json.gz, and "
                    f"{self.folder} has none"
                )
            told += written
        return told + folders_of(self.folder, FOLDERS)

    def records(self, found: Found) -> Iterator[Record]:
        pictures = self._pictures()
        known = self._known(pictures, found)
        classes = [str(stars + 1) for stars in range(STARS)]
        if self.label != "rating":
            classes = sorted({one.category for one in known.values() if one.category})
        found.names.append(Names(classes=classes))
        number = {name: i for i, name in enumerate(classes)}
        records = self._reviews(known, number, pictures, found)
        if not self.of_reviews:
            records = self._products(known, number, found)
        for record in records:
            if not record.captions[0]:
                found.notes[f"samples without a {self.text}"] += 1
            elif record.image is None and self.without_picture == "leave_out":
                found.notes["samples without a picture"] += 1
            else:
                yield record

    def _known(self, pictures: Downloaded, found: Found) -> dict[str, Known]:
        """Product by its asin, the first that is there."""
        known: dict[str, Known] = {}
        for path in files_of(self.folder, meta=True):
            for product in products(path):
                if product.asin in known:
                    found.notes["products that are there again"] += 1
                    continue
                category = product.category if self.label == "category" else product.department
                place = place_of(pictures, product.pictures, product.asin)
                known[product.asin] = Known(self._text(product), category, place)
        return known

    def _text(self, product: Product) -> str:
        if self.text == "review":
            return ""
        texts = (product.title, product.description if self.text == "description" else "")
        return "\n".join(filter(None, texts))

    def _products(
        self, known: dict[str, Known], number: dict[str, int], found: Found
    ) -> Iterator[Record]:
        for asin, one in known.items():
            if one.category:
                label = number[one.category]
                yield Record(key=asin, image=one.picture, captions=(one.text,), label=label)
            else:
                found.notes[f"samples without a {self.label}"] += 1

    def _reviews(
        self, known: dict[str, Known], number: dict[str, int], pictures: Downloaded, found: Found
    ) -> Iterator[Record]:
        nothing = Known("", "", None)
        for path in files_of(self.folder, meta=False):
            for line, review in reviews(path):
                product = known.get(review.asin, nothing)
                if known and product is nothing:
                    found.notes["reviews of products that no metadata names"] += 1
                if votes(review.vote) < self.min_votes:
                    found.notes[f"reviews with less than {self.min_votes} votes"] += 1
                elif self.label != "rating" and not product.category:
                    found.notes[f"samples without a {self.label}"] += 1
                else:
                    yield Record(
                        key=f"{path.name}:{line} {review.asin}",
                        image=place_of(pictures, listed(review.image)) or product.picture,
                        captions=(
                            (review.reviewText or "") if self.text == "review" else product.text,
                        ),
                        group=review.asin,
                        label=self._label(review.overall, number, product),
                    )

    def _label(self, rating: float, number: dict[str, int], product: Known) -> int | None:
        if self.label != "rating":
            return number[product.category]
        # What is no number of stars is no label.
        return int(rating) - 1 if rating in range(1, STARS + 1) else None

    def _pictures(self) -> Downloaded:
        return Downloaded(self.folder, FOLDERS, by=("md5", "name"))


def files_of(folder: Path, *, meta: bool) -> list[Path]:
    """Of metadata, or of reviews: of a category all of them, or else those of the 5-core."""
    found = {path.name.removesuffix(".gz").removesuffix(".json"): path for path in both(folder)}
    if meta:
        return [path for name, path in found.items() if name.startswith("meta_")]
    return [
        path
        for name, path in found.items()
        if not name.startswith("meta_")
        and not (name.endswith("_5") and name.removesuffix("_5") in found)
    ]


def both(folder: Path) -> list[Path]:
    """Packed ones last, so that they are taken where a file is there twice."""
    return [*sorted(folder.glob("*.json")), *sorted(folder.glob("*.json.gz"))]


def place_of(pictures: Downloaded, urls: Iterable[str], asin: str = "") -> str | None:
    """Where the first of these pictures is that is here."""
    if not pictures.named:
        return None
    for url in urls:
        for one in dict.fromkeys((full_size(url), url)):
            stem = posixpath.splitext(posixpath.basename(one))[0]  # %2B as it stands, or decoded
            place = pictures.named.get(stem) or pictures.find(0, one)
            if place is not None:
                return place
    return pictures.named.get(asin)
