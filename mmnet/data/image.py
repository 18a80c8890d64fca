"""Files to pictures: one careful way to open an image.

JPEGs of the usual kind are decoded by libjpeg-turbo, everything else by Pillow, to the same
pixels. What either of them finds broken is judged by Pillow, so that reasons are the same.
"""

import errno
import functools
import io
import os
import re
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mmnet.data import jpeg
from mmnet.interfaces import BadSample


# The formats photos come in. Not the rest of Pillow's: EPS starts Ghostscript, others read
# files beside the picture.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")

# A few hundred bytes can announce a picture that fills the memory. 50 megapixels are 200 MB
# once decoded; a picture one pixel wide costs time by its rows instead.
MAX_PIXELS = 50_000_000
MAX_SIDE = 65_535
TOO_LARGE = f"picture too large (limits: {MAX_PIXELS // 10**6} megapixels, {MAX_SIDE} a side)"
MAX_BYTES = 256 << 20  # of a file: 50 megapixels of 16-bit colour are 300 MB uncompressed
TOO_MANY_BYTES = f"file too large (limit: {MAX_BYTES >> 20} MiB)"

# What turns a picture upright, by the value of EXIF's Orientation: whether rows and columns
# are exchanged, then along which axes of [3, H, W] it is mirrored.
UPRIGHT: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (2,)),
    3: (False, (1, 2)),
    4: (False, (1,)),
    5: (True, ()),
    6: (True, (2,)),
    7: (True, (1, 2)),
    8: (True, (1,)),
}


def read_image(
    source: str | Path | bytes, key: str, at_least: int | None = None, *, lend: bool = False
) -> Tensor:
    """A file, or its bytes -> uint8 [3, H, W]: the first frame, upright, RGB.

    More than 8 bits are scaled down, what is transparent becomes white. A JPEG whose sides
    are more than twice `at_least` is decoded at 1/2, 1/4 or 1/8, never below `at_least`
    pixels a side: a third of the work for thumbnails.

    lend: the picture may lie in memory that the next call in this thread writes over, which is
    quicker for one that is resized at once (see mmnet.data.scratch).

    Raises BadSample(key, reason), whatever is wrong with the file: never a picture that is not
    in it, nor half of one.
    """
    try:
        data = source if isinstance(source, bytes) else contents(Path(source))
        if len(data) > MAX_BYTES:
            raise BadSample(key, TOO_MANY_BYTES)
        found = jpeg.header(data)
        picture = None if found is None else _by_libjpeg(data, found, key, at_least, lend)
        return _by_pillow(data, key, at_least) if picture is None else picture
    except BadSample:
        raise
    # Pillow answers damage with a dozen types, SyntaxError and RecursionError among them.
    except Exception as error:
        raise BadSample(key, why(error)) from error


def contents(path: Path) -> bytes:
    """All bytes of a regular file; of anything else none is waited for. Raises OSError."""
    # Opening a named pipe would wait for a writer without O_NONBLOCK, which Windows lacks.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        with open(handle, "rb", closefd=False) as file:
            return file.read(min(about.st_size, MAX_BYTES + 1))
    finally:
        os.close(handle)


def check_size(width: int, height: int, key: str) -> None:
    """Raises BadSample for more pixels than are decoded."""
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise BadSample(key, TOO_LARGE)


def _by_libjpeg(
    data: bytes, found: jpeg.Header, key: str, at_least: int | None, lend: bool
) -> Tensor | None:
    """None where that is for Pillow: the colours of print, and what libjpeg gives up."""
    check_size(found.width, found.height, key)
    if jpeg.scanned(data, found) > jpeg.MAX_SCANNED:
        raise BadSample(key, "picture in too many scans")
    rows = jpeg.decoded(data, found, at_least, lend=lend)
    if rows is None or rows.shape[2] != 3:
        return None
    picture = torch.from_numpy(rows).permute(2, 0, 1)
    if not found.tagged:
        return picture
    with warnings.catch_warnings(action="ignore"), _opened(data) as image:
        turn, mirror = UPRIGHT.get(_orientation(image), (False, ()))
    return (picture.transpose(1, 2) if turn else picture).flip(mirror)


def _by_pillow(data: bytes, key: str, at_least: int | None) -> Tensor:
    with warnings.catch_warnings(action="ignore"), _opened(data) as image:
        check_size(image.width, image.height, key)
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        image.load()
        _turn_upright(image)
        picture = _to_rgb(image)
        if picture is not image:
            image.close()  # it may take 200 MB, and so do the copies to come
        return to_tensor(picture)


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=_formats())


def cut(picture: Tensor, box: Sequence[float], key: str) -> Tensor:
    """The part of [3, H, W] within left, top, right, bottom, each in [0, 1]; what is beyond the
    picture is not part of it. Raises BadSample where nothing is left."""
    height, width = picture.shape[1:]
    left, right = (round(width * min(1.0, max(0.0, box[i]))) for i in (0, 2))
    top, bottom = (round(height * min(1.0, max(0.0, box[i]))) for i in (1, 3))
    if right <= left or bottom <= top:
        raise BadSample(key, "empty box")
    return picture[:, top:bottom, left:right]


def to_tensor(picture: Image.Image) -> Tensor:
    """RGB -> uint8 [3, H, W]"""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    # AVIF is missing from older Pillows; naming it there would make every picture bad.
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _orientation(image: Image.Image) -> int:
    """EXIF's, or XMP's; 1 where they are broken, which must not cost the picture."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _turn_upright(image: Image.Image) -> None:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # a broken EXIF block must not cost the picture
        return


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_grey(image)
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.mode == "La":  # premultiplied; Pillow knows no direct way
        image = image.convert("LA")
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    page = Image.new("RGB", image.size, "white")
    page.paste(layer, mask=layer)
    return page


def _to_grey(image: Image.Image) -> Image.Image:
    """16 bits, 32 bits or floats -> 8 bits; convert("L") would clip everything above 255."""
    values = np.asarray(image)
    if image.mode != "F" and values.min() >= 0 and values.max() < 2**16:
        grey = (values >> 8).astype(np.uint8)
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            grey[values == transparent] = 255
        return Image.fromarray(grey)
    # No scale is agreed on beyond 16 bits: darkest to black, brightest to white.
    values = values.astype(np.float32)
    known = np.isfinite(values)
    low = values.min(where=known, initial=np.inf)
    high = values.max(where=known, initial=-np.inf)
    if not low < high:
        return Image.new("L", image.size)
    np.nan_to_num(values, copy=False, nan=low, posinf=high, neginf=low)
    values -= low
    values *= 255 / (high - low)
    return Image.fromarray(np.rint(values, out=values).astype(np.uint8))


def why(error: Exception) -> str:
    """A short reason why a picture cannot be had, the same for alike cases."""
    match error:
        case FileNotFoundError():
            return "missing file"
        case UnidentifiedImageError():
            return "not a picture"
        case Image.DecompressionBombError():
            return TOO_LARGE
        case MemoryError():
            return "out of memory"
        case OSError(strerror=str(said)):
            return f"unreadable file: {said}"
    # Up to the first number, name or quotation, so that alike cases are counted together.
    said = re.split(r"[^A-Za-z -]", str(error))[0].strip(" -")
    return f"damaged picture: {said or type(error).__name__}"
