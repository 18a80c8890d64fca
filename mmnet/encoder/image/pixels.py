"""Pictures as encoders take them: bytes by channel, of the size that is asked for."""

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
    return F.resize(picture, [height, width], InterpolationMode.BILINEAR, antialias=True)
