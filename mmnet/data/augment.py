"""What training does to a picture, by the sample's own random numbers; all of it on uint8."""

import functools
import math
import random
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import RandAugment, Transform, TrivialAugmentWide

from mmnet.bounds import NonNegativeFloat, Range, Ratio, Share
from mmnet.data.colour import jittered
from mmnet.data.scratch import own, scratch
from mmnet.data.seeded import seeded
from mmnet.data.told import names_a_colour, names_a_side


LONGEST = 1024  # pixels a side, of a picture that keeps its shape

# Range of the logarithm of the aspect ratio of random crops (Szegedy et al., arXiv 1409.4842).
ASPECT = (math.log(3 / 4), math.log(4 / 3))


HalfCircle = Annotated[float, Range(0, 0.5 + 1e-12, says="a number in [0, 0.5]")]


@dataclass(frozen=True)
class Augment:
    """Settings `dataset.augment`. Evaluation takes the whole picture, as it is.

    The strengths of `color_jitter` are for brightness, contrast, saturation and hue, see
    mmnet.data.colour. `policy` is RandAugment (Cubuk et al., arXiv 1909.13719) or
    TrivialAugment in its wide ranges (Mueller and Hutter, arXiv 2103.10158), as torchvision has
    them. `normalize` is read by the encoder, `mixup` and `cutmix` where batches are made
    (mmnet.data.mixing). With `mind_text` a picture is not mirrored when its text names a side,
    and neither its hue is turned nor a policy applied when its text names a colour.
    """

    random_crop: Ratio  # smallest share of a picture's area that a crop keeps; 1: all of it
    random_flip: Share  # how often a picture is mirrored
    color_jitter: tuple[Share, Share, Share, HalfCircle] | None
    policy: Literal["rand", "trivial"] | None
    mind_text: bool  # leave out what would make the text untrue
    normalize: bool  # by the encoder's own mean and deviation; else only scaled to [0, 1]
    mixup: NonNegativeFloat  # alpha (Zhang et al., arXiv 1710.09412); 0: none
    cutmix: NonNegativeFloat  # alpha (Yun et al., arXiv 1905.04899); 0: none


def whole(picture: Tensor, size: int | None) -> Tensor:
    """uint8 [3, H, W], squeezed to size x size, antialiased.

    None: in its own shape, shrunk where a side is longer than LONGEST.
    """
    height, width = picture.shape[1:]
    sides = (size, size) if size is not None else within(height, width)
    return resized(picture, sides)


def augmented(
    picture: Tensor, size: int | None, how: Augment, rng: random.Random, text: str | None = None
) -> Tensor:
    """uint8 [3, H, W] -> a random crop of it, size x size, mirrored now and then, changed.

    The crop's share of the area is uniform in [random_crop, 1], the logarithm of its aspect
    ratio uniform between those of 3/4 and 4/3 (Szegedy et al., arXiv 1409.4842, as in
    torchvision's RandomResizedCrop). size None: those ratios are to the picture's own, and the
    crop keeps its shape as in `whole`. text: what the sample shows beside the picture.

    The same random numbers are drawn whatever the text says.
    """
    minded = text if how.mind_text and text is not None else ""
    coloured = names_a_colour(minded)
    given = picture
    top, left, height, width = crop(picture, how.random_crop, rng, own=size is None)
    picture = picture[:, top : top + height, left : left + width]
    sides = (size, size) if size is not None else within(height, width)
    picture = resized(picture, sides)
    if rng.random() < how.random_flip and not names_a_side(minded):
        picture = picture.flip(-1)
    if how.policy is not None:
        seed = rng.getrandbits(63)
        picture = picture if coloured else by_policy(picture, how.policy, seed)
    if how.color_jitter is not None:
        picture = jittered(own(picture, given), how.color_jitter, rng, keep_hue=coloured)
    return picture


def by_policy(picture: Tensor, name: Literal["rand", "trivial"], seed: int) -> Tensor:
    """What torchvision's policy of that name draws from this seed."""
    with seeded(seed):
        changed: Tensor = policies()[name](picture)
    return changed


@functools.cache
def policies() -> dict[str, Transform]:
    return {"rand": RandAugment(), "trivial": TrivialAugmentWide()}


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


def enough(size: int, random_crop: float) -> int:
    """Pixels a side that a picture must keep, so that it may be decoded at less than its own.

    Twice the size, and so many that the narrowest crop is not enlarged.
    """
    narrowest = math.sqrt(random_crop) * math.exp(ASPECT[0] / 2)
    return math.ceil(size * max(2.0, 1 / narrowest))


def within(height: float, width: float) -> tuple[int, int]:
    """Sides of the same shape, in pixels, neither above LONGEST nor enlarged."""
    scale = min(1.0, LONGEST / max(width, height))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resized(picture: Tensor, sides: tuple[int, int]) -> Tensor:
    """uint8 [3, H, W] -> [3, *sides], bilinear, antialiased: Pillow's, within a rounding.

    Channels last in memory, as decoders leave them: half the time, and so it stays in a batch.
    """
    if picture.shape[1:] == torch.Size(sides):
        return picture
    rows = picture.permute(1, 2, 0)
    if not rows.is_contiguous():
        room = torch.from_numpy(scratch("resized", rows.numel())).view(rows.shape)
        rows = room.copy_(rows)
    # Told in strides, for of one picture with as many channels torch sees both layouts.
    strides = (rows.numel(), 1, 3 * rows.shape[1], 3)
    batch = rows.as_strided((1, 3, *rows.shape[:2]), strides)
    return F.interpolate(batch, sides, mode="bilinear", antialias=True)[0]
