"""BookCorpus: sentences, one a line."""

import shutil
from pathlib import Path


WORDS = ("model=text_only", "head=masked_lm")


def make(folder: Path, data: Path) -> None:
    for part in ("books_large_p1.txt", "books_large_p2.txt"):
        shutil.copy(data / "books/bookcorpus_layout" / part, folder)
