"""JPEG: what its header says, and decoding by libjpeg-turbo straight to bytes.

By simplejpeg: torchvision's own decoder is deprecated since 0.29, and neither that nor Pillow's
says when libjpeg filled with grey what a damaged file does not hold.
"""

import re
import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg

from mmnet.data.scratch import scratch


# Baseline, extended and progressive frames: what libjpeg-turbo decodes.
FRAMES = (0xC0, 0xC1, 0xC2)
# A scan costs time by the picture's pixels and hardly any bytes. A photo has ten of them.
MAX_SCANNED = 500_000_000  # pixels, times scans
# Bytes that some cameras leave between the picture and its end. More of them are left where
# damage threw the decoder off its track.
FEW = 16


class Header(NamedTuple):
    """What stands before the first scan."""

    width: int
    height: int
    channels: int
    tagged: bool  # whether there is EXIF or XMP, which may say that the picture lies
    layered: bool  # whether one scan is not all of it
    body: int  # where the first scan begins


class Damaged(Exception):
    """The file does not hold all of the picture; says what is wrong."""


def header(data: bytes) -> Header | None:
    """None: no JPEG, or one whose header is not in order."""
    if not data.startswith(b"\xff\xd8"):
        return None
    at, frame, tagged, progressive = 2, None, False, False
    while at + 10 < len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xFF:  # what fills up
            at += 1
            continue
        if kind == 0xDA:
            if frame is None:
                return None
            layered = progressive or data[at + 4] < frame[2]
            return Header(*frame, tagged, layered, at)
        if kind == 0x01 or 0xD0 <= kind <= 0xD9:
            return None
        if kind in FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
            if frame is not None or bits != 8 or not (width and height):
                return None
            frame, progressive = (width, height, channels), kind == 0xC2
        tagged |= kind == 0xE1
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def scanned(data: bytes, found: Header) -> int:
    """Pixels, times scans."""
    # Looking for them costs as much as a tenth of decoding.
    scans = data.count(b"\xff\xda", found.body) if found.layered else 1
    return found.width * found.height * scans


def decoded(
    data: bytes, found: Header, at_least: int | None, *, lend: bool
) -> npt.NDArray[np.uint8] | None:
    """[H, W, 3] as it lies, or [H, W, 4] in the colours of print; None: libjpeg gave up.

    At half its size or less where both sides stay `at_least` so long. lend: in memory that the
    next call writes over. Raises Damaged where the data of the picture end early or are out of
    order.
    """
    # At less than half the size decoding is faster, at more of it slower.
    small = at_least is not None and min(found.width, found.height) >= 2 * at_least
    sides = (at_least, at_least, 2) if small else (0, 0, 1)
    channels = 4 if found.channels == 4 else 3
    room = scratch("decoded", found.width * found.height * channels) if lend else None
    try:
        picture: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, "CMYK" if channels == 4 else "RGB", False, False, *sides, room
        )
    except ValueError as error:
        said = str(error)
        if said.startswith("Corrupt JPEG data: ") and not harmless(said):
            raise Damaged(re.sub(r"^.*?: \d*", "", said).strip()) from None
        return None
    return picture


def harmless(said: str) -> bool:
    """Whether all of the picture is there in spite of a warning, the header being in order."""
    left = re.search(r"(\d+) extraneous bytes before marker 0xd9", said)
    return "ICC" in said or (left is not None and int(left[1]) <= FEW)
