"""Tar shards of small pictures, as webdataset has them, for streams."""

import io
import json
import tarfile
from pathlib import Path

from PIL import Image


COUNT = 60  # in train-0.tar to train-2.tar


def make(folder: Path) -> None:
    for number in range(3):
        shard(folder / f"train-{number}.tar", range(20 * number, 20 * (number + 1)))
    shard(folder / "val-0.tar", range(100, 112))


def shard(path: Path, numbers: range, **spoilt: bytes) -> None:
    """Of each number a sample; numbers 7 and 33 have what is `spoilt` instead."""
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            parts = {
                "jpg": picture(number),
                "txt": f"picture {number}".encode(),
                "json": json.dumps({"caption": [f"{number} a", f"{number} b"]}).encode(),
                "cls": str(number % 4).encode(),
            }
            if number in (7, 33):
                parts |= spoilt
            for name, content in parts.items():
                info = tarfile.TarInfo(f"{number:05d}.{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def picture(number: int) -> bytes:
    file = io.BytesIO()
    image = Image.new("RGB", (24, 20), (number * 4 % 256, 90, 30))
    image.putpixel((5, 5), (255, 255, 255))
    image.save(file, "JPEG")
    return file.getvalue()
