"""CC3M's labelled subset: the real rows, and some more with their labels."""

from pathlib import Path

from tests.official import draw
from tests.official.cc3m import md5


WORDS = ("head=multilabel", "dataset.num_classes=8", "dataset.val_fraction=0.3")
CHANGES = {"num_classes": "7"}
COUNT = 36


def make(folder: Path, data: Path) -> None:
    name = "Image_Labels_Subset_Train_GCC-Labels-training.tsv"
    real = (data / "cc3m" / name).read_text("utf-8").splitlines()
    fields = [line.split("\t") for line in real]
    rows = [
        [f"{caption} {number}", f"{url}?{number}", *rest]
        for number in range(COUNT // len(fields))
        for caption, url, *rest in fields
    ]
    (folder / name).write_text("".join("\t".join(row) + "\n" for row in rows), "utf-8")
    for number, row in enumerate(rows):
        draw(folder / "training" / f"{md5(row[1])}.jpg", number)
