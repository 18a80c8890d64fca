"""CC12M: real rows of CC3M with the columns as CC12M has them, pictures by their row."""

from pathlib import Path

from tests.official import draw
from tests.official.cc3m import real_rows


WORDS = ("head=contrastive", "fusion=separate", "dataset.val_fraction=0.3")


def make(folder: Path, data: Path) -> None:
    rows = [row.rstrip("\n").split("\t") for row in real_rows(data)]
    told = "".join(f"{url}\t{caption}\n" for caption, url in rows)
    (folder / "cc12m.tsv").write_text(told, "utf-8")
    for number in range(len(rows)):
        draw(folder / "images" / f"{number:08d}.jpg", number)
