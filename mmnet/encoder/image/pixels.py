"""Pictures as encoders take them: bytes by channel, of the size that is asked for."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F


def pixels(raw: Image.Image | Tensor) -> Tensor:
    """An RGB picture, or what it is already -> uint8 [3, H, W]"""
    if isinstance(raw, Tensor):
        return raw
    return torch.from_numpy(np.array(raw)).permute(2, 0, 1)


def resized(picture: Tensor, height: int, width: int) -> Tensor:
    """uint8 [3, H, W] -> [3, height, width], bilinear, antialiased."""
    if picture.shape[1:] == (height, width):
        return picture
    bilinear = InterpolationMode.BILINEAR
    smaller: Tensor = F.resize(picture, [height, width], bilinear, antialias=True)
    return smaller


def mean_and_std(published: dict[str, Any], normalize: bool) -> tuple[Tensor, Tensor]:
    """[3] each, for pixels from 0 to 255: what a model was trained with, or to scale to [0, 1]."""
    mean, std = (published["mean"], published["std"]) if normalize else ([0.0] * 3, [1.0] * 3)
    return torch.tensor(mean) * 255, torch.tensor(std) * 255
