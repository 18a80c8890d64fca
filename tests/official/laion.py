"""LAION: img2dataset's shards, of which one was not finished."""

import json
from pathlib import Path

from tests.official.webdataset import picture, write_tar


WORDS = ("head=contrastive", "fusion=separate", "dataset.val_fraction=0.2")
COUNT = 25  # samples of a shard


def make(folder: Path, data: Path) -> None:
    for shard in range(3):
        first = shard * COUNT
        files = [one for number in range(first, first + COUNT) for one in sample(shard, number)]
        write_tar(folder / f"{shard:05d}.tar", files)
        if shard < 2:
            stats = {
                "count": 30,
                "successes": COUNT,
                "failed_to_download": 4,
                "failed_to_resize": 1,
            }
            (folder / f"{shard:05d}_stats.json").write_text(json.dumps(stats))


def sample(shard: int, number: int) -> list[tuple[str, bytes]]:
    key = f"{shard:05d}{number:04d}"
    caption = None if number % 11 == 3 else f"caption {number}"
    told = {"caption": caption, "url": f"http://site/{number}.jpg", "key": key, "status": "success"}
    return [
        (f"{key}.jpg", picture(number)),
        (f"{key}.json", json.dumps(told).encode()),
        (f"{key}.txt", (caption or "").encode()),
    ]
