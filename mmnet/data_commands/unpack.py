"""Archives into folders: what is there already is left, and nothing leaves the folder."""

import tarfile
import zipfile
from pathlib import Path

from mmnet.errors import UserError


def unpack(archive: Path, folder: Path) -> int:
    """Write those members that `folder` lacks or has in another size; how many.

    Raises UserError for a damaged archive, and for one that would write elsewhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if archive.suffix == ".zip":
            return _unzip(archive, folder)
        return _untar(archive, folder)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{archive}: cannot be unpacked: {error}") from error


def command(name: str, into: str) -> str:
    """The same as a line for a shell."""
    if name.endswith(".zip"):
        return f"unzip -n {name} -d {into}"
    make = "" if into == "." else f"mkdir -p {into} && "
    return f"{make}tar xf {name} -C {into}"


def _unzip(archive: Path, folder: Path) -> int:
    count = 0
    with zipfile.ZipFile(archive) as content:
        for member in content.infolist():  # extract() keeps names within the folder
            if not member.is_dir() and _lacks(folder / member.filename, member.file_size):
                content.extract(member, folder)
                count += 1
    return count


def _untar(archive: Path, folder: Path) -> int:
    count = 0
    with tarfile.open(archive) as content:
        for member in content:
            if not member.isfile() or _lacks(folder / member.name, member.size):
                content.extract(member, folder, filter="data")
                count += member.isfile()
    return count


def _lacks(path: Path, size: int) -> bool:
    return not path.is_file() or path.stat().st_size != size
