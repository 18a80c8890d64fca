"""SBU: addresses on Flickr, and the pictures as torchvision names them."""

import json
from pathlib import Path

from tests.official import draw


WORDS = ("head=contrastive", "fusion=separate", "dataset.val_fraction=0.2")
COUNT = 60


def make(folder: Path, data: Path) -> None:
    real = json.loads((data / "sbu/sbu-captions-all.json").read_text("utf-8"))
    more = range(len(real["captions"]), COUNT)
    urls = [*real["image_urls"], *(f"http://static.flickr.com/1/{i}_aa.jpg" for i in more)]
    captions = [*real["captions"], *(f"picture number {i}" for i in more)]
    users = [*real["user_ids"], *(f"{i}@N00" for i in more)]
    told = {"image_urls": urls, "user_ids": users, "captions": captions}
    (folder / "sbu-captions-all.json").write_text(json.dumps(told), "utf-8")
    for number, url in enumerate(urls):
        draw(folder / "dataset" / url.rpartition("/")[2], number)
