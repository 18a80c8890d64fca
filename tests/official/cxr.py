"""The COVID-19 image data collection: the part that is at hand, with its real pictures."""

import shutil
from pathlib import Path


WORDS = ("dataset.val_fraction=0.3",)


def make(folder: Path, data: Path) -> None:
    (folder / "images").mkdir()
    shutil.copyfile(data / "cxr_notes/metadata.csv", folder / "metadata.csv")
    for path in (data / "cxr_notes/images").iterdir():
        shutil.copyfile(path, folder / "images" / path.name)
