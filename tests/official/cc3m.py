"""CC3M: real rows of both files, pictures by the MD5 of their address and by their row."""

import hashlib
from itertools import islice
from pathlib import Path

from tests.official import draw


WORDS = ("head=contrastive", "fusion=separate")
COUNT = 40


def real_rows(data: Path) -> list[str]:
    """Of the published validation."""
    path = data / "cc3m/Validation_GCC-1.1.0-Validation.tsv"
    with path.open(encoding="utf-8", newline="\n") as file:
        return list(islice(file, COUNT))


def md5(url: str) -> str:
    return hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()


def make(folder: Path, data: Path) -> None:
    rows = real_rows(data)
    (folder / "GCC-training.tsv").write_text("".join(rows[:30]), "utf-8")
    (folder / "GCC-1.1.0-Validation.tsv").write_text("".join(rows[30:]), "utf-8")
    for number, row in enumerate(rows[:30]):
        url = row.rstrip("\n").split("\t")[1]
        draw(folder / "images" / f"{md5(url)}.jpg", number)
    for number in range(10):
        draw(folder / "validation" / f"{number}.jpg", number + 100)
