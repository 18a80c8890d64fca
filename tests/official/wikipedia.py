"""Wikipedia: the excerpt of a dump, as it is packed."""

import shutil
from pathlib import Path


WORDS = ("model=text_only", "head=masked_lm", "dataset.val_fraction=0.1")
CHANGES = {"markup": "keep", "passage": "200"}


def make(folder: Path, data: Path) -> None:
    [part] = (data / "wikipedia").glob("*.bz2")
    shutil.copy(part, folder)
