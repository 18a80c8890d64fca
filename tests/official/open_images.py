"""Open Images: V6's and V7's tables with their own names, photos drawn where they unpack."""

import json
import random
from pathlib import Path

from tests.official import draw


WORDS = (
    "head=multilabel",
    "model=image_only",
    "dataset.num_classes=4",
    "dataset.labels_by=both",
)
CHANGES = {
    "what": "boxes",
    "classes": "all",
    "labels_by": "human",
    "confidence": "0.9",
}
MIDS = ("/m/0", "/m/1", "/m/02wvth", "/m/3")
NAMES = ("Box", "Savannah Sparrow", 'Fiat 500 ""topolino""', "Box")
COUNTS = {"train": 24, "validation": 10, "test": 4}
HEADER = "ImageID,Source,LabelName,Confidence"
FLAGS = "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
SHORT = {"train": "oidv6-train", "validation": "validation", "test": "test"}


def image_id(split: str, number: int) -> str:
    return f"00{list(COUNTS).index(split)}{number:04d}e100000000"[:16]  # 0000003e10000000


def make(folder: Path, data: Path) -> None:
    rows = [f'{mid},"{name}"' for mid, name in zip(MIDS, NAMES, strict=True)]
    classes = "LabelName,DisplayName\n" + "\n".join(rows)
    (folder / "oidv7-class-descriptions-boxable.csv").write_text(classes)
    (folder / "oidv7-class-descriptions.csv").write_text("\n".join(reversed(rows)))
    for split, count in COUNTS.items():
        make_split(folder, split, count)


def make_split(folder: Path, split: str, count: int) -> None:
    rng = random.Random(split)
    human, machine, boxes, images, told = [HEADER], [HEADER], [], [], []
    for number in range(count):
        one = image_id(split, number)
        draw(folder / split / f"{one}.jpg", 7 * number)
        images.append(
            f'{one},{split},u,u,l,u,A,"a, ""b""\nc",1,m,t,{[0.0, 90.0, "", 180.0][number % 4]}'
        )
        for mid in MIDS[:3]:
            human.append(f"{one},verification,{mid},{rng.randint(0, 1)}")
        machine += [f"{one},machine,{MIDS[3]},{sure}" for sure in (0.4 + 0.2 * (number % 3),)]
        boxes.append(f"{one},xclick,{MIDS[number % 4]},1,0.1,0.7,0.2,0.9,-1,-1,-1,-1,-1")
        told += [
            {"dataset_id": "d", "image_id": one, "annotator_id": 1, "caption": f"{number} {text}"}
            for text in ("seen", "told")
        ]
    name = SHORT[split]
    images.insert(
        0,
        "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
        "OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation",
    )
    boxes.insert(0, f"{HEADER},XMin,XMax,YMin,YMax,{FLAGS}")
    for kind, rows in {
        "annotations-human-imagelabels": human,
        "annotations-machine-imagelabels": machine,
        "annotations-bbox": boxes,
        "images-with-labels-with-rotation": images,
    }.items():
        (folder / f"{name}-{kind}.csv").write_text("\n".join(rows) + "\n")
    (folder / f"open_images_{split}_localized_narratives.jsonl").write_text(
        "\n".join(map(json.dumps, told))
    )
