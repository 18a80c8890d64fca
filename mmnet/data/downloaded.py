"""Pictures that were published as addresses only: which of them are here, and under which name."""

import hashlib
import posixpath
from collections.abc import Iterable
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit


SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")


class Downloaded:
    """The pictures in some folders of a dataset, found by their row and address.

    by: how downloaders name them: by the number of the row from 0 (`17.jpg`, `000000017.jpg`),
    by the MD5 of the address, or as the address itself does, where addresses end in names that
    are their own. Numbers count only in folders that hold nothing else.
    """

    def __init__(
        self, root: Path, folders: Iterable[str], by: tuple[Literal["row", "md5", "name"], ...]
    ) -> None:
        self.by = by
        self.named: dict[str, str] = {}  # name without suffix -> path below the root
        self.numbered: dict[int, str] = {}
        for folder in folders:
            if not (root / folder).is_dir():
                continue
            found = {
                posixpath.splitext(name)[0]: f"{folder}/{name}"
                for name in sorted(path.name for path in (root / folder).iterdir())
                if name.lower().endswith(SUFFIXES)
            }
            if "row" in by and all(stem.isdecimal() for stem in found):
                self.numbered |= {int(stem): place for stem, place in found.items()}
            else:
                self.named |= found

    def find(self, row: int, url: str) -> str | None:
        """The picture of an address, the `row`-th from 0; None if it is not here."""
        if row in self.numbered:
            return self.numbered[row]
        if "md5" in self.by and self.named:
            digest = hashlib.md5(url.encode(errors="replace"), usedforsecurity=False).hexdigest()
            if digest in self.named:
                return self.named[digest]
        if "name" in self.by and self.named:
            return self.named.get(posixpath.splitext(posixpath.basename(path_of(url)))[0])
        return None


def folders_of(root: Path, names: Iterable[str]) -> list[Path]:
    """Those that are there. What is in them is not listed, which takes long for millions."""
    return [root / name for name in names if (root / name).is_dir()]


def path_of(url: str) -> str:
    """What follows the host, decoded; empty for an address that is none."""
    try:
        return unquote(urlsplit(url).path)
    except ValueError:
        return ""
