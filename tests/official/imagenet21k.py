"""ImageNet-21K: folders and tars of synsets side by side, in an order of classes of its own."""

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
)
CHANGES = {"caption": "name", "classes": "other.txt"}


def make(folder: Path, data: Path) -> None:
    (folder / "order.txt").write_text("\n".join(CLASSES) + "\n")
    (folder / "other.txt").write_text("\n".join(reversed(CLASSES)))
    for number, wnid in enumerate((*CLASSES, "n04004475")):
        for picture in range(12):
            draw(folder / wnid / f"{wnid}_{picture}.JPEG", 16 * number + picture)
    pack(folder / CLASSES[1])


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
