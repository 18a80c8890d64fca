"""The hub's files: Parquet with pictures inside."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.official import draw


WORDS = ("dataset.num_classes=3", "dataset.val_fraction=0.2")
CHANGES = {
    "file": "data/train-00000-of-00002.parquet",
    "image": "thumbnail",
    "caption": "comment",
    "label": "kind",
    "labels": "marks",
    "value": "price",
    "split_column": "part",
    "num_classes": "4",
    "train_split": "[part]",
    "val_split": "[part]",
}
COUNT = 40


def make(folder: Path, data: Path) -> None:
    for number in range(2):
        rows = range(number * COUNT // 2, (number + 1) * COUNT // 2)
        name = f"train-{number:05d}-of-00002.parquet"
        write(folder / "data" / name, [row(i, folder) for i in rows])
    write(folder / "data/part-00000-of-00001.parquet", [row(i, folder) for i in range(COUNT, 50)])
    (folder / "drawn.png").unlink()


def row(number: int, folder: Path) -> dict:
    kinds = {"tags": ["a", "b", "c"][: 1 + number % 3], "kind": number % 2, "price": float(number)}
    return {
        "image": {"bytes": picture(number, folder), "path": f"{number}.png"},
        "text": [f"caption {number}", f"another {number}"],
        "label": number % 3,
        "value": number / 2,
        "thumbnail": {"bytes": picture(number + 1, folder), "path": None},
        "comment": f"comment {number}",
        "marks": ["a"] if number % 2 else ["b"],
        "part": "val" if number < 9 else "train",
        **kinds,
    }


def picture(number: int, folder: Path) -> bytes:
    draw(folder / "drawn.png", number)
    return (folder / "drawn.png").read_bytes()


def write(path: Path, rows: list[dict], features: dict | None = None) -> None:
    """A Parquet file; `features` are what datasets notes of the columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    if features:
        told = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": told})
    pq.write_table(table, path, row_group_size=7)
