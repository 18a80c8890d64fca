"""Files to pictures: one careful way to open an image."""

import functools
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mmnet.interfaces import BadSample


# The formats photos come in. Not the rest of Pillow's: EPS starts Ghostscript, others read
# files beside the picture.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")

# A few hundred bytes can announce a picture that fills the memory. 50 megapixels are 200 MB
# once decoded; a picture one pixel wide costs time by its rows instead.
MAX_PIXELS = 50_000_000
MAX_SIDE = 65_535
TOO_LARGE = f"picture too large (limits: {MAX_PIXELS // 10**6} megapixels, {MAX_SIDE} a side)"


def read_image(source: str | Path | bytes, key: str, at_least: int | None = None) -> Tensor:
    """A file, or its bytes -> uint8 [3, H, W]: the first frame, upright, RGB.

    More than 8 bits are scaled down, what is transparent becomes white. A JPEG whose sides
    are more than twice `at_least` is decoded at 1/2, 1/4 or 1/8, never below `at_least`
    pixels a side: a third of the work for thumbnails.

    Raises BadSample(key, reason), whatever is wrong with the file.
    """
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(
                io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats()
            ) as image,
        ):
            if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
                raise BadSample(key, TOO_LARGE)
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            image.load()
            _turn_upright(image)
            return to_tensor(_to_rgb(image))
    except BadSample:
        raise
    # Pillow answers damage with a dozen types, SyntaxError and RecursionError among them.
    except Exception as error:
        raise BadSample(key, why(error)) from error


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
    layer = image.convert("RGBA")
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
