"""A run folder: one process at a time trains in it, and its small files are whole."""

import fcntl
import os
from pathlib import Path
from typing import TextIO

from mmnet.checkpoint import sync
from mmnet.errors import UserError


LOCK = ".lock"


def hold(folder: Path) -> TextIO:
    """Keep other processes from training in `folder`, until what this returns is closed.

    Raises UserError if one does already.
    """
    file = (folder / LOCK).open("a+")
    try:
        # Not flock: that lives on in data workers for seconds after their trainer was killed.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        raise UserError(f"{folder}: in use by {file.read() or 'another process'}") from error
    file.truncate(0)
    file.write(f"process {os.getpid()} on {os.uname().nodename}")
    file.flush()
    return file


def put(path: Path, text: str) -> None:
    """Write a small file. A kill or a full disk leaves the one that was there before."""
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
