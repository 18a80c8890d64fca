"""arXiv: the first lines of the snapshot."""

import shutil
from pathlib import Path


WORDS = ("model=text_only", "dataset.num_classes=16", "dataset.val_fraction=0.2")


def make(folder: Path, data: Path) -> None:
    shutil.copy(data / "arxiv/arxiv-metadata-oai-snapshot.json", folder)
