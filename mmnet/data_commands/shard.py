"""One shard of a prepared dataset: its samples read, shrunk, written and summed up."""

import io
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from PIL import Image

from mmnet.data.augment import resized
from mmnet.data.image import read_image, why
from mmnet.data.published import Pictures, Published
from mmnet.data.shard_format import Prepared, write_shard
from mmnet.data_commands.digest import digest
from mmnet.errors import UserError
from mmnet.folder import put
from mmnet.interfaces import BadSample


QUALITY = 95  # of pictures that are shrunk, as JPEG


class How(msgspec.Struct, frozen=True):
    """What is done to each sample."""

    short_side: int | None  # pixels
    decode: bool  # look into pictures that are not shrunk
    fail: bool  # at the first bad one


class Shard(msgspec.Struct, frozen=True):
    """The samples `start` to `stop` of a split."""

    name: str
    split: str
    start: int
    stop: int
    first: int  # number of its first sample, those of the splits before it counted


class Done(msgspec.Struct):
    """What came of a shard."""

    samples: int
    bytes: int
    sha256: str
    bad: list[tuple[str, str]]  # (key, reason) of each sample that could not be read


def done_path(out: Path, name: str) -> Path:
    """Where it stands what came of the shard."""
    return out / ".prepare" / f"{name}.json"


def rows_of(published: Published) -> dict[str, npt.NDArray[np.int64]]:
    """The numbers of the records of each split, in their order; no record is left out.

    Where the settings draw the splits, those are train and val, and what is in neither keeps the
    name of its own.
    """
    if len(published.table) == 0:
        return {}
    names = published.table.column("split").to_numpy().astype(object)
    if published.drawn:
        names = np.where(np.isin(names, ("train", "val", "")), "rest", names)
        for role in ("train", "val"):
            names[published.rows(role)] = role
    return {str(name): np.flatnonzero(names == name) for name in dict.fromkeys(names)}


def make(
    published: Published, rows: npt.NDArray[np.int64], how: How, out: Path, one: Shard
) -> Done:
    """Write a shard. Raises OSError, and UserError at a bad sample that is to be fatal."""
    bad: list[tuple[str, str]] = []

    def samples() -> Iterator[Prepared]:
        for row in rows[one.start : one.stop].tolist():
            try:
                sample = prepared(published, row, how)
            except BadSample as problem:
                if how.fail:
                    raise UserError(
                        f"sample {problem.key} of {one.split} cannot be read: {problem.reason} "
                        f"(dataset.on_bad_sample=fail; skip would leave it out and count it)"
                    ) from None
                bad.append((problem.key, problem.reason))
            else:
                yield Prepared(sample.record._replace(split=one.split), sample.picture)

    path = out / one.name
    write_shard(path, samples(), one.first)
    found = Done(one.stop - one.start - len(bad), path.stat().st_size, digest(path, "sha256"), bad)
    done_path(out, one.name).parent.mkdir(exist_ok=True)
    put(done_path(out, one.name), msgspec.json.encode(found).decode())
    return found


def prepared(published: Published, row: int, how: How) -> Prepared:
    """A record with the bytes of its picture. Raises BadSample."""
    record = published.table[row]
    if record.image is None or not isinstance(published, Pictures):
        return Prepared(record, None)
    try:
        source = published.picture(record.image)
        content = source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise BadSample(record.key, why(error)) from error
    if how.short_side is None:
        if how.decode:
            read_image(content, record.key)
        return Prepared(record, content)
    return Prepared(record, shrunk(content, how.short_side, record.key))


def shrunk(content: bytes, side: int, key: str) -> bytes:
    """A picture whose shorter side is `side`, as JPEG; the same bytes if it is no longer already.

    Raises BadSample.
    """
    # Twice the size, so that JPEG's own shrinking leaves pixels enough for a good one.
    picture = read_image(content, key, at_least=2 * side)
    height, width = picture.shape[1:]
    if min(height, width) <= side:
        return content
    scale = side / min(height, width)
    sides = (max(side, round(height * scale)), max(side, round(width * scale)))
    made = io.BytesIO()
    Image.fromarray(resized(picture, sides).permute(1, 2, 0).numpy()).save(
        made, "JPEG", quality=QUALITY
    )
    return made.getvalue()
