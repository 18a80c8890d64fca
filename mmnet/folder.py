"""A run folder: one process at a time trains in it, and its small files are whole."""

import contextlib
import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import BinaryIO

from mmnet.errors import UserError


LOCK = ".lock"
BEFORE = {LOCK, "train.log"}  # what is there of a run that has not begun


def hold(folder: Path) -> BinaryIO:
    """Keep other processes from training in `folder`, until what this returns is closed.

    Raises UserError if one does already.
    """
    try:
        file: BinaryIO = (folder / LOCK).open("a+b", buffering=0)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error
    try:
        # Not flock: that lives on in data workers for seconds after their trainer was killed.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            file.close()
            raise UserError(f"{folder} cannot be locked: {error.strerror}") from error
        file.seek(0)
        holder = file.read().decode() or "another process"
        file.close()
        raise UserError(f"{folder}: in use by {holder}") from error
    with contextlib.suppress(OSError):  # a full disk: told of by what cannot do without it
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}".encode())
    return file


def clear(folder: Path) -> None:
    """Take away the folder of a run that never began."""
    if folder.exists():
        if not {path.name for path in folder.iterdir()} <= BEFORE:
            return
        shutil.rmtree(folder)
    here = Path.cwd()
    for parent in (folder.parent, folder.parent.parent):
        # Not what the user made for the purpose: only folders that a first run makes by itself.
        if here not in parent.parents or not parent.exists() or any(parent.iterdir()):
            break
        parent.rmdir()


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


def sync(path: Path) -> None:
    """Ask the disk to have it, not only the page cache: for power loss, not for kills."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
