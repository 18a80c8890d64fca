"""Finding a published dataset by its layout, and parsing its JSON."""

import json
import mmap
import os
from pathlib import Path
from typing import TypeVar

import msgspec

from mmnet.errors import UserError


T = TypeVar("T")

DEPTH = 3  # folders below paths.data in which a dataset is looked for


def find_root(name: str, data: Path, layouts: list[list[str]]) -> Path:
    """The one folder at or below `data` that holds every part of one of `layouts`.

    A part is a path relative to that folder; the first folder of the first one tells a folder
    that is nearly right. Raises UserError if there is none, or several.
    """
    found: dict[Path, Path] = {}
    nearly = []
    mark = Path(layouts[0][0]).parts[0]
    for path, folders, _ in os.walk(data, followlinks=True):
        folder = Path(path)
        if mark in folders:
            missing = lacking(folder, layouts)
            if missing:
                nearly.append(f"{folder} lacks {', '.join(missing)}")
            else:
                found[folder.resolve()] = folder
                folders.clear()  # hundreds of thousands of files, and no dataset among them
        if len(folder.relative_to(data).parts) >= DEPTH:
            folders.clear()
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        have = f"found {', '.join(sorted(map(str, found.values())))}"
    elif data.is_dir():
        have = f"found none ({'; '.join(sorted(nearly)) or 'nothing like it'})"
    else:
        have = "there is no such folder"
    others = " (or another edition of them)" if len(layouts) > 1 else ""
    raise UserError(
        f"dataset={name} wants one folder at or up to {DEPTH} below paths.data={data} that holds "
        f"{', '.join(layouts[0])}{others}; {have}. Name it with dataset.root=<folder>"
    )


def check_root(name: str, root: Path, layouts: list[list[str]]) -> Path:
    """`root`, if it holds every part of one of `layouts`. Raises UserError saying what not."""
    missing = lacking(root, layouts)
    if missing:
        raise UserError(f"dataset.root={root} is no {name}: it lacks {', '.join(missing)}")
    return root


def lacking(root: Path, layouts: list[list[str]]) -> list[str]:
    """The parts that `root` lacks of the layout it fits best."""
    return min(
        ([part for part in layout if not (root / part).exists()] for layout in layouts), key=len
    )


def read_json(path: Path, kind: type[T]) -> T:
    """What `kind`, a msgspec type, asks for of the file.

    Raises UserError naming the file and the place in it.
    """
    try:
        # Mapped, not read: a file may have 450 MB of which a tenth is asked for.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            try:
                return msgspec.json.decode(text, type=kind)
            except msgspec.DecodeError as error:
                if "surrogate" not in str(error):
                    raise
                # Half a character in some text: json lets it through, and it is replaced there.
                return msgspec.convert(json.loads(text[:]), type=kind)
    except (msgspec.MsgspecError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: {error}") from error
