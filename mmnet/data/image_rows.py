"""Pictures and classes in parquet files as the Hugging Face hub keeps them, read in place."""

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mmnet.errors import UserError


PLACE = re.compile(r"(.+)@(\d+)/(\d+)")
HELD = 4  # groups of rows that a process keeps, of some 100 pictures each


class Row(NamedTuple):
    """One picture with its class."""

    key: str  # its own name, or else the file and the row
    place: str  # see `read_row`
    label: int | None


def has_columns(path: Path, names: tuple[str, ...]) -> bool:
    """Whether a file is parquet and has these columns."""
    try:
        return set(names) <= set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError):
        return False


def class_names(path: Path, column: str) -> list[str]:
    """What the classes of a column are called, as `datasets` notes it; empty if it does not."""
    told = (pq.read_schema(path).metadata or {}).get(b"huggingface", b"{}")
    try:
        found = json.loads(told)["info"]["features"][column]["names"]
    except (ValueError, KeyError, TypeError):
        return []
    # Older versions note them by number: {"0": "tench", ...}
    named = list(found.values()) if isinstance(found, dict) else found
    return [str(name) for name in named]


def image_rows(root: Path, name: str, column: str) -> Iterator[Row]:
    """The rows of a file below `root`, without reading their pictures. Raises UserError."""
    try:
        with pq.ParquetFile(root / name) as file:
            paths = any(file.schema.column(i).path == "image.path" for i in range(len(file.schema)))
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, ["image.path"] * paths + [column])
                labels = table.column(column).to_pylist()
                named = table.column("image").to_pylist() if paths else [{}] * len(labels)
                for row, (label, image) in enumerate(zip(labels, named, strict=True)):
                    place = f"{name}@{group}/{row}"
                    yield Row((image or {}).get("path") or place, place, label)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{root / name}: {error}") from error


def read_row(root: Path, place: str) -> bytes:
    """The picture that `Row.place` names. Raises OSError."""
    found = PLACE.fullmatch(place)
    assert found is not None, place
    try:
        images = _group(root / found[1], int(found[2]))
        picture = images[int(found[3])].as_py()
    except pa.ArrowException as error:
        raise OSError(f"damaged parquet: {error}") from error
    if picture is None or picture["bytes"] is None:
        raise FileNotFoundError(place)
    data: bytes = picture["bytes"]
    return data


@lru_cache(HELD)
def _group(path: Path, number: int) -> pa.ChunkedArray:
    with pq.ParquetFile(path) as file:
        return file.read_row_group(number, ["image.bytes"]).column("image")
