"""Small encoders of every kind, and what they are given."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from mmnet.encoder.image.naflex import NaFlex
from mmnet.encoder.image.timm import Timm
from mmnet.encoder.text.bytes import Bytes
from mmnet.encoder.text.huggingface import HuggingFace
from mmnet.interfaces import Features, Inputs


VIT: dict[str, Any] = {
    "name": "vit_tiny_patch16_224",
    "pretrained": None,
    "image_size": 32,
    "patch_size": 8,
    "dim": 32,
    "depth": 2,
    "num_heads": 2,
    "reg_tokens": None,
    "dynamic_img_size": False,
    "output_stride": None,
    "pooling": None,
    "dropout": 0.0,
    "drop_path": 0.0,
    "normalize": True,
}
OWN_SIZES = dict.fromkeys(("patch_size", "dim", "depth", "num_heads"))
CONVNEXT = VIT | OWN_SIZES | {"name": "test_convnext", "output_stride": 8}
NAFLEX: dict[str, Any] = {
    "name": "naflexvit_base_patch16_map",
    "pretrained": None,
    "max_patches": 24,
    "patch_size": 8,
    "dim": 32,
    "depth": 2,
    "num_heads": 2,
    "reg_tokens": None,
    "pooling": None,
    "dropout": 0.0,
    "drop_path": 0.0,
    "normalize": True,
}
BYTES: dict[str, Any] = {
    "pretrained": None,
    "max_length": 40,
    "causal": False,
    "pooling": "mean",
    "dim": 32,
    "depth": 2,
    "num_heads": 2,
    "dropout": 0.0,
}
BERT: dict[str, Any] = {
    "name": None,
    "architecture": "bert",
    "pretrained": None,
    "max_length": 77,
    "pooling": "cls",
    "dim": 32,
    "depth": 2,
    "num_heads": 2,
    "dropout": 0.0,
}

CAPTIONS = ["a red circle", "which colour has the very small star?", "so", "ünïcode ✓"]
SHAPES = [(32, 32), (80, 20), (8, 60), (5, 5)]  # width, height


def vit(**changes: Any) -> Timm:
    torch.manual_seed(0)
    return Timm(**VIT | changes)


def convnext(**changes: Any) -> Timm:
    torch.manual_seed(0)
    return Timm(**CONVNEXT | changes)


def naflex(**changes: Any) -> NaFlex:
    torch.manual_seed(0)
    return NaFlex(**NAFLEX | changes)


def text_bytes(**changes: Any) -> Bytes:
    torch.manual_seed(0)
    return Bytes(**BYTES | changes)


def bert(vocabulary: Path, **changes: Any) -> HuggingFace:
    torch.manual_seed(0)
    return HuggingFace(**BERT | {"tokenizer": str(vocabulary)} | changes)


def noise(*sizes: tuple[int, int]) -> list[Image.Image]:
    """RGB pictures of these widths and heights."""
    draw = torch.Generator().manual_seed(0)
    found = []
    for width, height in sizes:
        pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=draw)
        found.append(Image.fromarray(pixels.numpy()))
    return found


def raw_for(encoder: Any) -> list[Any]:
    """Four samples as a dataset would give them."""
    if isinstance(encoder, NaFlex):
        return noise(*SHAPES)
    if isinstance(encoder, Timm):
        return noise(*[(encoder.prepare.size,) * 2] * 4)
    return CAPTIONS


def batch_for(encoder: Any) -> Inputs:
    prepare = encoder.prepare
    collated: Inputs = prepare.collate([prepare(raw) for raw in raw_for(encoder)])
    return collated


def alone(encoder: Any) -> list[Features]:
    """The features of each sample in a batch of its own."""
    prepare = encoder.prepare
    return [encoder(prepare.collate([prepare(raw)])) for raw in raw_for(encoder)]


def parameters_in(layers: list[list[nn.Module | nn.Parameter]]) -> list[nn.Parameter]:
    return [
        parameter
        for layer in layers
        for part in layer
        for parameter in ([part] if isinstance(part, nn.Parameter) else part.parameters())
    ]


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference."""
    return (one - other).abs().max().item()
