"""ImageNet-21K: MIIL's two folders, and folders and tars of synsets side by side."""

import io
import tarfile
from pathlib import Path

from tests.official import draw


CLASSES = ("n02084071", "n00005787", "n01440764")
WORDS = (
    "model=image_only",
    "dataset.classes=order.txt",
    "dataset.num_classes=3",
    "dataset.val_fraction=0.3",
    "dataset.augment.random_crop=0.5",
)
CHANGES = {"augment.random_flip": "0", "caption": "name", "classes": "other.txt"}


def make(folder: Path, data: Path) -> None:
    orders(folder)
    for split, count in (("train", 8), ("val", 4)):
        for number, wnid in enumerate(CLASSES):
            for picture in range(count):
                path = folder / f"imagenet21k_{split}/{wnid}/{wnid}_{picture}{split}.JPEG"
                draw(path, 16 * number + picture)


def make_drawn(folder: Path, data: Path) -> None:
    orders(folder)
    for number, wnid in enumerate((*CLASSES, "n04004475")):
        for picture in range(12):
            draw(folder / wnid / f"{wnid}_{picture}.JPEG", 16 * number + picture)
    pack(folder / CLASSES[1])


def orders(folder: Path) -> None:
    (folder / "order.txt").write_text("\n".join(CLASSES) + "\n")
    (folder / "other.txt").write_text("\n".join(reversed(CLASSES)))


def pack(folder: Path) -> None:
    """A folder of pictures becomes a tar of them, as the publisher has it."""
    with tarfile.open(folder.with_suffix(".tar"), "w") as tar:
        for path in sorted(folder.iterdir()):
            info = tarfile.TarInfo(path.name)
            content = path.read_bytes()
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            path.unlink()
    folder.rmdir()
