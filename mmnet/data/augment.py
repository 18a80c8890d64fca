"""What training does to a picture, by the sample's own random numbers; all of it on uint8."""

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from mmnet.bounds import Ratio, Share


LONGEST = 1024  # pixels a side, of a picture that keeps its shape

# Range of the logarithm of the aspect ratio of random crops (Szegedy et al., arXiv 1409.4842).
ASPECT = (math.log(3 / 4), math.log(4 / 3))


@dataclass(frozen=True)
class Augment:
    """Settings `dataset.augment`. Evaluation takes the whole picture, as it is."""

    random_crop: Ratio  # smallest share of a picture's area that a crop keeps; 1: all of it
    random_flip: Share  # how often a picture is mirrored


def whole(picture: Tensor, size: int | None) -> Tensor:
    """uint8 [3, H, W], squeezed to size x size, antialiased.

    None: in its own shape, shrunk where a side is longer than LONGEST.
    """
    height, width = picture.shape[1:]
    sides = (size, size) if size is not None else within(height, width)
    return resized(picture, sides)


def augmented(picture: Tensor, size: int | None, how: Augment, rng: random.Random) -> Tensor:
    """uint8 [3, H, W] -> a random crop of it, size x size, mirrored now and then.

    The crop's share of the area is uniform in [random_crop, 1], the logarithm of its aspect
    ratio uniform between those of 3/4 and 4/3 (Szegedy et al., arXiv 1409.4842, as in
    torchvision's RandomResizedCrop). size None: those ratios are to the picture's own, and the
    crop keeps its shape as in `whole`.
    """
    top, left, height, width = crop(picture, how.random_crop, rng, own=size is None)
    picture = picture[:, top : top + height, left : left + width]
    sides = (size, size) if size is not None else within(height, width)
    picture = resized(picture, sides)
    return picture.flip(-1) if rng.random() < how.random_flip else picture


def crop(
    picture: Tensor, scale: float, rng: random.Random, *, own: bool
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random crop."""
    height, width = picture.shape[1:]
    if scale == 1:
        return 0, 0, height, width
    around = width / height if own else 1.0
    for _ in range(10):
        area = width * height * rng.uniform(scale, 1)
        aspect = around * math.exp(rng.uniform(*ASPECT))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            top, left = rng.randint(0, height - high), rng.randint(0, width - wide)
            return top, left, high, wide
    return 0, 0, height, width  # so long a picture holds no such crop


def within(height: float, width: float) -> tuple[int, int]:
    """Sides of the same shape, in pixels, neither above LONGEST nor enlarged."""
    scale = min(1.0, LONGEST / max(width, height))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resized(picture: Tensor, sides: tuple[int, int]) -> Tensor:
    """uint8 [3, H, W] -> [3, *sides], bilinear, antialiased."""
    if picture.shape[1:] == torch.Size(sides):
        return picture
    return F.resize(picture, list(sides), InterpolationMode.BILINEAR, antialias=True)
