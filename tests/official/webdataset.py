"""webdataset: three shards of pictures, texts, classes and JSON, none of them for evaluation."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw


WORDS = (
    "dataset.num_classes=3",
    "dataset.labels=json.tags",
    "dataset.value=json.score",
    "dataset.val_fraction=0.2",
)
CHANGES = {
    "shards": "train-*.tar",
    "needs": "[image,text]",
    "text": "json.title",
    "label": "json.kind",
    "labels": "json.few",
    "value": "json.other",
    "num_classes": "4",
    "train_split": "[train]",
    "val_split": "[more]",
}
COUNT = 20  # samples of a shard


def make(folder: Path, data: Path) -> None:
    for number, name in enumerate(("train-000000.tar", "train-000001.tar", "more-000000.tar")):
        first = number * COUNT
        write_tar(folder / name, [one for i in range(first, first + COUNT) for one in sample(i)])


def sample(number: int) -> list[tuple[str, bytes]]:
    """The files of one sample; every seventh has no text."""
    tags = ["a", "b", "c"][: number % 4]
    told = {"title": f"title {number}", "kind": number % 2, "tags": tags, "few": tags[:1]}
    key = f"{number:06d}"
    files = [
        (f"{key}.jpg", picture(number)),
        (f"{key}.cls", str(number % 3).encode()),
        (f"{key}.json", json.dumps({**told, "score": number / 2, "other": -number}).encode()),
    ]
    return files if number % 7 == 0 else [*files, (f"{key}.txt", f"caption {number}".encode())]


def picture(number: int, kind: str = "JPEG", size: tuple[int, int] = (48, 40)) -> bytes:
    """A file, told from others by its colours."""
    image = Image.new("RGB", size, (37 * number % 256, 91 * number % 256, 151 * number % 256))
    ImageDraw.Draw(image).ellipse((size[0] // 4, size[1] // 4, size[0] // 2, 22), fill="white")
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def write_tar(
    path: Path, files: Iterable[tuple[str, bytes]], kind: int = tarfile.PAX_FORMAT
) -> None:
    """An ordinary tar of these files, in this order."""
    with tarfile.open(path, "w", format=kind) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
