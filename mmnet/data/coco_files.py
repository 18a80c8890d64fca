"""What COCO's annotation files say, and what follows of it for each image."""

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import msgspec

from mmnet.data.files import is_bare, read_json
from mmnet.data.karpathy import read_karpathy
from mmnet.errors import UserError


# Where Karpathy's file may lie.
KARPATHY = ("dataset_coco.json", "annotations/dataset_coco.json", "karpathy/dataset_coco.json")


# What is read of the files, by their own names. gc=False: millions of them, none in a cycle.
class Photo(msgspec.Struct, gc=False):
    id: int
    file_name: str


class Caption(msgspec.Struct, gc=False):
    id: int
    image_id: int
    caption: str


class Instance(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    area: float
    iscrowd: int = 0


class Category(msgspec.Struct):
    id: int
    supercategory: str


class Captions(msgspec.Struct):
    images: list[Photo]
    annotations: list[Caption]


class Instances(msgspec.Struct):
    images: list[Photo]
    annotations: list[Instance]
    categories: list[Category]


class Listed(msgspec.Struct):
    images: list[Photo]


class Contents(NamedTuple):
    """What a file of instances says of each image."""

    path: Path
    classes: list[str]  # the supercategories, each once, in the order of their first category
    photos: list[Photo]
    labels: dict[int, int]  # image id -> class of its largest instance
    held: dict[int, list[int]]  # image id -> the class of each of its instances


def contents_of(path: Path) -> Contents:
    """Of the largest by area, the lowest id among equals; crowds (iscrowd) are no instances.

    Raises UserError for a malformed file and an unknown category.
    """
    instances = read_json(path, Instances)
    classes = list(dict.fromkeys(category.supercategory for category in instances.categories))
    of_category = {c.id: classes.index(c.supercategory) for c in instances.categories}
    largest: dict[int, Instance] = {}
    held: dict[int, list[int]] = defaultdict(list)
    for instance in instances.annotations:
        if instance.iscrowd:
            continue
        if instance.category_id not in of_category:
            raise UserError(
                f"{path}: annotation {instance.id} of image {instance.image_id} has category_id "
                f"{instance.category_id}, which is not among the file's categories"
            )
        held[instance.image_id].append(of_category[instance.category_id])
        best = largest.setdefault(instance.image_id, instance)
        if (instance.area, -instance.id) > (best.area, -best.id):
            largest[instance.image_id] = instance
    labels = {image: of_category[instance.category_id] for image, instance in largest.items()}
    return Contents(path, classes, instances.images, labels, dict(held))


def evaluation_files(root: Path) -> list[Path]:
    """Those that say which images COCO's networks are evaluated with: of val of 2017, or else of
    2014, and Karpathy's. Raises UserError where `root` has none."""
    listed = [
        f"{kind}_val{year}.json" for year in (2017, 2014) for kind in ("captions", "instances")
    ]
    files = [path for name in listed if (path := root / "annotations" / name).exists()]
    divided = [path for name in KARPATHY if (path := root / name).exists()]
    if not (files or divided):
        raise UserError(f"{root} lacks annotations/{listed[0]}, or another list of COCO's val")
    return files[:1] + divided[:1]


def evaluation_images(root: Path) -> set[int]:
    """Ids of the images that COCO's networks are evaluated with. Raises UserError."""
    found: set[int] = set()
    for path in evaluation_files(root):
        if path.name in KARPATHY:
            held = (photo for photo in read_karpathy(path) if photo.split in ("val", "test"))
            found |= {photo.cocoid for photo in held if photo.cocoid is not None}
        else:
            found |= {photo.id for photo in read_json(path, Listed).images}
    return found


def texts_of(captions: Captions) -> dict[int, tuple[str, ...]]:
    """Image id -> its distinct captions by annotation id."""
    texts: dict[int, dict[str, None]] = defaultdict(dict)
    for caption in sorted(captions.annotations, key=lambda caption: caption.id):
        texts[caption.image_id][caption.caption] = None
    return {image: tuple(distinct) for image, distinct in texts.items()}


def names_of(photos: dict[Path, list[Photo]]) -> dict[int, str]:
    """Image id -> file name. Raises UserError for two names, and one that leads elsewhere."""
    names: dict[int, str] = {}
    for path, listed in photos.items():
        for photo in listed:
            name = photo.file_name
            if not is_bare(name):
                raise UserError(
                    f"{path}: image {photo.id} has file_name {name!r}, expected the bare name of "
                    f"a file, such as 000000000139.jpg"
                )
            if (known := names.setdefault(photo.id, name)) != name:
                raise UserError(f"{path}: image {photo.id} is called {known} and {name}")
    return names
