"""A user's table: paths of pictures, captions, labels, and columns of other names."""

import csv
import json
from pathlib import Path

from tests.official import draw


WORDS = ("dataset.num_classes=3", "dataset.val_fraction=0.2")
CHANGES = {
    "file": "'*.csv'",
    "images": "others",
    "image": "thumbnail",
    "caption": "comment",
    "label": "kind",
    "labels": "marks",
    "value": "price",
    "split_column": "part",
    "num_classes": "4",
    "train_split": "[more]",
    "val_split": "[more]",
}
COLUMNS = ("image_path", "Caption", "label", "tags", "value", "thumbnail", "comment", "kind")
COUNT = 40


def make(folder: Path, data: Path) -> None:
    header = (*COLUMNS, "marks", "price", "part")
    with (folder / "samples.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for i in range(COUNT):
            tags = ",".join("abc"[: 1 + i % 3])
            names = (f"{i}.jpg", f'caption {i}, of "{i % 3}"', i % 3, tags, i / 2)
            others = (
                f"{i % 5}.jpg",
                f"comment {i}",
                i % 2,
                "a" if i % 2 else "b",
                i,
                "val" if i < 9 else "train",
            )
            writer.writerow((*names, *others))
            draw(folder / "images" / f"{i}.jpg", i)
            draw(folder / "others" / f"{i}.jpg", COUNT - i)
    told = (
        {"text": f"line {i}", "class": i % 3, "kind": i % 2, "tags": ["a"], "value": 1, "price": i}
        for i in range(12)
    )
    lines = (json.dumps({"file_name": f"{i}.jpg", **row}) for i, row in enumerate(told))
    (folder / "more.jsonl").write_text("\n".join(lines), "utf-8")
