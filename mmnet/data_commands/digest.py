"""Checksums of large files, with a bar where they take long."""

import hashlib
from pathlib import Path

from tqdm import tqdm


CHUNK = 1 << 20  # bytes read at once


def digest(path: Path, kind: str) -> str:
    """The checksum of a file, in hexadecimal digits; `kind` as hashlib calls it."""
    found = hashlib.new(kind, usedforsecurity=False)
    with (
        path.open("rb") as file,
        tqdm(
            total=path.stat().st_size,
            desc=f"checking {path.name}",
            unit="B",
            unit_scale=True,
            delay=3,
            disable=None,
            leave=False,
        ) as bar,
    ):
        while chunk := file.read(CHUNK):
            found.update(chunk)
            bar.update(len(chunk))
    return found.hexdigest()
