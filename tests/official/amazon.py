"""Amazon: metadata and reviews of magazines, and some of their covers."""

import gzip
import json
import shutil
from pathlib import Path

from tests.official import draw


WORDS = ("dataset.val_fraction=0.2", "dataset.augment.random_flip=0.5")
CHANGES = {
    "text": "title",
    "min_votes": "2",
    "without_picture": "leave_out",
    "augment.random_flip": "0",
}
COUNT = 20  # pictures


def make(folder: Path, data: Path) -> None:
    for part in ("meta_Magazine_Subscriptions.json.gz", "Magazine_Subscriptions_5.json.gz"):
        shutil.copy(data / "amazon_v2" / part, folder)
    with gzip.open(folder / "Magazine_Subscriptions_5.json.gz") as file:
        reviewed = {json.loads(line)["asin"] for line in file}
    with gzip.open(folder / "meta_Magazine_Subscriptions.json.gz") as file:
        products = [json.loads(line) for line in file]
    some = [one for one in products if one["asin"] in reviewed and one["imageURLHighRes"]]
    for number, one in enumerate(some[:COUNT]):
        draw(folder / "images" / one["imageURLHighRes"][0].rpartition("/")[2], number)
