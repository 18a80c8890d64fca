"""What can be counted of a dataset, and what its pictures are like when they are opened."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from mmnet.data.image import read_image, why
from mmnet.data.published import Pictures, Published
from mmnet.interfaces import BadSample


class Looked(NamedTuple):
    """One picture of a record."""

    row: int
    key: str
    width: int = 0  # pixels
    height: int = 0
    bytes: int = 0
    digest: str = ""  # of its bytes
    bad: str = ""  # why it cannot be read


def evenly(rows: npt.NDArray[Any], most: int | str) -> npt.NDArray[Any]:
    """At most so many of them ("all": all), as far apart as they can be."""
    if isinstance(most, str) or len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def with_pictures(published: Published) -> npt.NDArray[np.int64]:
    """The numbers of the records that have a picture, of each picture the first."""
    if not isinstance(published, Pictures) or len(published.table) == 0:
        return np.zeros(0, np.int64)
    places = published.table.column("image").combine_chunks()
    rows = pa.table({"place": places, "row": np.arange(len(places))}).filter(pc.is_valid(places))
    first = rows.group_by("place").aggregate([("row", "min")]).column("row_min").to_numpy()
    return np.sort(first)


def look(published: Published, rows: npt.NDArray[np.int64]) -> Iterator[Looked]:
    """Decode the pictures of these records, in their order."""
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,  # decoders let go of Python's lock
        tqdm(total=len(rows), unit=" pictures", delay=3, disable=None, leave=False) as bar,
    ):
        step = 1000  # so that what is read does not pile up
        for start in range(0, len(rows), step):
            some = rows[start : start + step].tolist()
            for one in pool.map(lambda row: _looked(published, row), some):
                bar.update()
                yield one


def _looked(published: Published, row: int) -> Looked:
    assert isinstance(published, Pictures)
    record = published.table[row]
    try:
        source = published.picture(str(record.image))
        content = source if isinstance(source, bytes) else source.read_bytes()
        height, width = read_image(content, record.key).shape[1:]
    except (OSError, BadSample) as problem:
        bad = problem.reason if isinstance(problem, BadSample) else why(problem)
        return Looked(row, record.key, bad=bad)
    return Looked(row, record.key, width, height, len(content), hashlib.sha256(content).hexdigest())


def counted(published: Published, what: str, split: str) -> int:
    """How many there are of `what` (see facts.Count), in a published split ("": all)."""
    table = published.table
    if what == "classes":
        return len(published.names.classes or published.names.labels)
    if len(table) == 0:
        return 0
    chosen = pc.is_in(table.column("split"), pa.array([*_names(split)])) if split else None
    if what == "samples":
        return len(table) if chosen is None else int(pc.sum(chosen).as_py())
    names = {"pictures": "image", "captions": "captions", "documents": "group"}
    column = table.column(names[what])
    if chosen is not None:
        column = column.filter(chosen)
    if what == "captions":
        return int(pc.sum(pc.list_value_length(column)).as_py() or 0)
    distinct = int(pc.count_distinct(column, mode="only_valid").as_py())
    if what == "documents":  # a sample without a group is one by itself
        alone = int(pc.sum(pc.equal(column, "")).as_py() or 0)
        return distinct + max(0, alone - 1)
    return distinct


def _names(split: str) -> tuple[str, ...]:
    """What a split is called by some: files of one publisher say val and validation."""
    held_out = ("val", "validation", "valid", "dev")
    return held_out if split in held_out else (split,)
