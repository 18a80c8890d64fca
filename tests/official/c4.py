"""C4: a shard of each split of the multilingual edition, in two languages."""

import gzip
import json
from pathlib import Path


WORDS = ("model=text_only", "head=masked_lm")
CHANGES = {"languages": "[de]", "train_split": "[validation]", "val_split": "[train]"}
SHARDS = {
    "c4-de.tfrecord-00000-of-02048.json.gz": 20,
    "c4-de-validation.tfrecord-00000-of-00016.json.gz": 5,
    "c4-en.tfrecord-00000-of-11264.json.gz": 20,
    "c4-en-validation.tfrecord-00000-of-00011.json.gz": 5,
}


def make(folder: Path, data: Path) -> None:
    with gzip.open(data / "c4/en/c4-train.00000-of-01024.json.gz") as file:
        pages = [json.loads(line) for line in file]
    for shard, count in SHARDS.items():
        with gzip.open(folder / shard, "wb") as file:
            for number in range(count):
                page = pages[number % len(pages)]
                told = page | {"text": f"{shard} {number}\n{page['text']}"}
                file.write(json.dumps(told, ensure_ascii=False).encode() + b"\n")
