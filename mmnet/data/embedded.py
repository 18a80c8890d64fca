"""Pictures that lie inside a Parquet or Arrow file, put where each is read at once.

Parquet is compressed by the thousand rows: to read one picture is to read them all. So they are
copied once, as they are, into a tar in the cache, with an index.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmnet.data.records import cache_folders
from mmnet.data.shard_format import extension_of, write_tar
from mmnet.data.tables import rows_of
from mmnet.data.tar_index import Index, index_of, write_index
from mmnet.errors import UserError


def pictures_of(path: Path, column: str) -> Index:
    """The pictures of a column, whose keys are the numbers of their rows from 1 (`000000001`).

    The column holds bytes, or a struct of which `bytes` are. Raises UserError, OSError.
    """
    stat = path.stat()
    seen = json.dumps([str(path.resolve()), stat.st_size, stat.st_mtime_ns, column])
    name = f"pictures-{hashlib.sha256(seen.encode()).hexdigest()[:20]}.tar"
    for folder in cache_folders():
        shard = folder / name
        if shard.is_file():
            return index_of(shard)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            room = shutil.disk_usage(folder).free
        except OSError:
            continue  # the next folder
        if room < 2 * stat.st_size:
            raise UserError(
                f"{path}: its pictures would be copied to {folder}, which has {room:,} bytes left; "
                f"set MMNET_CACHE to a larger disk, or prepare the dataset as shards"
            )
        write_tar(shard, _members(path, column))
        return write_index(shard, checksums=True)
    raise UserError("neither the cache folder nor the temporary folder can be written")


def _members(path: Path, column: str) -> Iterator[dict[str, Any]]:
    for number, (found,) in rows_of(path, [column]):
        content = bytes_of(found)
        if content is not None:
            yield {"__key__": f"{number:09d}", extension_of(content): content}


def bytes_of(found: Any) -> bytes | None:
    """A picture as a cell has it."""
    if isinstance(found, dict):
        found = found.get("bytes")
    return found if isinstance(found, bytes) and found else None
