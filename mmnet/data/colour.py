"""Changing the colours of a picture by one matrix, in one pass."""

import math
import random

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmnet.data.scratch import scratch


# Luma and two axes of chroma: RGB to YIQ, and back.
TO_YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], np.float32
)
TO_RGB = np.linalg.inv(TO_YIQ)
# What keeps of a pixel its luma, its chroma, and its chroma turned by a right angle.
LUMA, CHROMA, ACROSS = (
    (TO_RGB @ np.array(part) @ TO_YIQ).astype(np.float32)
    for part in (
        [[1, 0, 0], [0, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 0, 0], [0, 0, -1], [0, 1, 0]],
    )
)

SIDE_BY_SIDE = 4  # pixels multiplied at once: a product of 3 x 3 wastes most of a register
AT_A_TIME = 7168  # pixels; a larger product would be divided among threads


def jittered(
    picture: Tensor,
    strengths: tuple[float, float, float, float],
    rng: random.Random,
    *,
    keep_hue: bool = False,
) -> Tensor:
    """uint8 [3, H, W] with brightness, contrast, saturation and hue changed at random, where it
    can be in place.

    Factors are uniform in [1 - s, 1 + s] for the first three strengths, the turn of the hue in
    [-s, s] of a circle for the last, as in torchvision's ColorJitter. All four together are one
    3 x 4 matrix, which sets it apart from that: always in this order, rounded and clipped once
    at the end, and the hue is turned around the grey axis of YIQ (luma stays as it is; HSV
    keeps the largest channel instead). keep_hue: the hue is not turned.
    """
    brightness, contrast, saturation = (rng.uniform(max(0, 1 - s), 1 + s) for s in strengths[:3])
    angle = 2 * math.pi * rng.uniform(-strengths[3], strengths[3])
    chroma = turned(saturation, 0.0 if keep_hue else angle)
    rows = np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
    matrix = np.float32(brightness * contrast) * chroma
    # Grey goes through `chroma` unchanged.
    map_colours(rows, matrix, brightness * (1 - contrast) * mean_luma(rows))
    return torch.from_numpy(rows).permute(2, 0, 1)


def mean_luma(rows: npt.NDArray[np.uint8]) -> float:
    """Of every fourth row of [H, W, 3]."""
    some = rows[::4].reshape(-1, rows.shape[1] * 3)
    columns = some.sum(0, dtype=np.int32).reshape(-1, 3)
    return float((TO_YIQ[0] @ columns.sum(0)).item() / (len(some) * rows.shape[1]))


def map_colours(rows: npt.NDArray[np.uint8], matrix: npt.NDArray[np.float32], bias: float) -> None:
    """Each pixel of [H, W, 3] becomes matrix @ pixel + bias, rounded and clipped.

    In place and some at a time: most of the time would go into fresh memory.
    """
    count = SIDE_BY_SIDE if rows.size % (3 * SIDE_BY_SIDE) == 0 else 1
    pixels = rows.reshape(-1, 3 * count)
    diagonal = np.zeros((count, 3, count, 3), np.float32)
    for place in range(count):
        diagonal[place, :, place] = matrix.T
    blocks = diagonal.reshape(3 * count, 3 * count)
    shape = (2, min(len(pixels), AT_A_TIME // count), 3 * count)
    floats = scratch("floats", 4 * math.prod(shape)).view(np.float32).reshape(shape)
    for start in range(0, len(pixels), floats.shape[1]):
        part = pixels[start : start + floats.shape[1]]
        before, after = floats[:, : len(part)]
        before[:] = part
        np.matmul(before, blocks, out=after)
        after += bias + 0.5  # which makes of cutting off a rounding
        torch.from_numpy(after).clamp_(0, 255)  # in half the time of NumPy's
        part[:] = after  # and this by NumPy in a quarter of torch's


def turned(saturation: float, angle: float) -> npt.NDArray[np.float32]:
    """[3, 3]: chroma scaled, and turned by an angle around the axis of greys."""
    cos, sin = saturation * math.cos(angle), saturation * math.sin(angle)
    matrix: npt.NDArray[np.float32] = LUMA + np.float32(cos) * CHROMA + np.float32(sin) * ACROSS
    return matrix
