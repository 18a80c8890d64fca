"""Who divides Flickr30k's photos how: Karpathy's splits and the Entities', told by their files."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mmnet.data.files import lines
from mmnet.data.karpathy import read_karpathy
from mmnet.errors import UserError


KARPATHY, UNRELATED = "dataset_flickr30k.json", "UNRELATED_CAPTIONS"
# Their names in the Entities have no ending (Plummer et al., arXiv 1505.04870, section 3).
NAMES = {"karpathy": re.compile(r"\S+\.jpg"), "entities": re.compile(r"\d+")}
ROLES = re.compile(r"(?<![a-z])(train|valid|val|dev|test)", re.IGNORECASE)
COMES = {
    "karpathy": f"{KARPATHY} of caption_datasets.zip, or lists of names that end in .jpg",
    "entities": "train.txt, val.txt and test.txt of the Entities, whose names have no .jpg",
}


class Families(NamedTuple):
    """The files that say what is for training."""

    listed: list[tuple[Path, str]]  # lists of names, and Karpathy's own file; and whose they are
    unrelated: list[Path]  # lists of captions that are not of their photo

    def splits(self, family: str, of_table: dict[str, str], root: Path) -> dict[str, str]:
        """The split of each photo, by its file's name, as `family` divides them.

        of_table: Karpathy's, as far as the captions' own file says them. Raises UserError where
        nothing says how they are divided, or a photo is in two splits.
        """
        if family == "karpathy" and of_table:
            return of_table
        files = [path for path, whose in self.listed if whose == family]
        if not files:
            others = sorted(
                {whose for _, whose in self.listed} | ({"karpathy"} if of_table else set())
            )
            have = f"; it has those of dataset.splits={', '.join(others)}" if others else ""
            raise UserError(
                f"dataset.splits={family}: {root} holds no such splits, looked for in it and in "
                f"its folders: {COMES[family]}{have}"
            )
        split_of: dict[str, str] = {}
        for path in files:
            for name, split in _read(path, family):
                if (known := split_of.setdefault(name, split)) != split:
                    raise UserError(f"{path}: {name} is for {split}, and for {known} elsewhere")
        return split_of


def families(root: Path, photos: set[str]) -> Families:
    """The files of splits in a folder and in those in it, but not in folders of `photos`."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    folders = [folder for folder in folders if folder.name not in photos]
    found: list[tuple[Path, str]] = []
    for folder in folders:
        if (folder / KARPATHY).exists():
            found.append((folder / KARPATHY, "karpathy"))
    if not found:  # it says more than lists that were made of it
        found += _lists(folders, "karpathy")
    found += _lists(folders, "entities")
    unrelated = [folder / UNRELATED for folder in folders if (folder / UNRELATED).exists()]
    return Families(found, unrelated)


def _lists(folders: Iterable[Path], family: str) -> list[tuple[Path, str]]:
    """Those whose name says of which split they are, and whose first line is such a name."""
    return [
        (path, family)
        for folder in folders
        for path in sorted(folder.glob("*.txt"))
        if ROLES.search(path.stem)
        and NAMES[family].fullmatch(
            next((line.strip() for line in lines(path) if line.strip()), "")
        )
    ]


def _read(path: Path, family: str) -> Iterable[tuple[str, str]]:
    """(file name of a photo, split). Raises UserError."""
    if path.name == KARPATHY:
        yield from ((photo.filename, photo.split) for photo in read_karpathy(path))
        return
    found = ROLES.search(path.stem)
    assert found is not None
    split = {"valid": "val", "dev": "val"}.get(found[1].lower(), found[1].lower())
    for number, line in enumerate(lines(path), 1):
        name = line.strip()
        if not name:
            continue
        if not NAMES[family].fullmatch(name):
            raise UserError(
                f"{path}, line {number}: {name[:60]!r}, but the names above are of the kind of "
                f"{family}: {COMES[family]}"
            )
        yield (name if family == "karpathy" else f"{name}.jpg"), split


def read_unrelated(path: Path) -> set[tuple[str, int]]:
    """(file name of a photo, number from 0) of the captions. Raises UserError."""
    found = set()
    for line, text in enumerate(lines(path), 1):
        if not text.strip() or text.startswith("#"):
            continue
        match text.split():
            case [photo, number] if photo.isdecimal() and number.isdecimal() and int(number) > 0:
                found.add((f"{photo}.jpg", int(number) - 1))
            case _:
                raise UserError(f"{path}, line {line}: {text!r}, expected <photo> <number from 1>")
    return found
