"""The networks of recipe.py, of this package's own parts, and data that they can learn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from experiments.bench.common import VOCABULARY
from experiments.bench.feed import Collate
from mmnet.encoder.image.timm import Timm
from mmnet.encoder.text.huggingface import HuggingFace
from mmnet.fusion.concat import Concat
from mmnet.head.classification import Classification
from mmnet.interfaces import Inputs
from mmnet.model import Multimodal


CLASSES = 10
CLS, SEP, FIRST_WORD = 2, 3, 5


class Shape(NamedTuple):
    """A network of two towers, and the batches it is given."""

    image_size: int
    image: tuple[int, int, int]  # dim, depth, heads
    text: tuple[int, int, int]
    dropout: float
    batch_size: int
    max_length: int  # tokens, special ones included


TWO_TOWER = Shape(112, (192, 12, 3), (192, 4, 3), 0.0, 32, 77)
SMALL = Shape(32, (64, 2, 2), (64, 2, 2), 0.0, 4, 16)
# ViT 6 layers, text 4, as the predecessor was measured. Its two layers of fusion, over all
# tokens of both, have no counterpart here; a network with two more layers in each tower
# pushes as many tokens through as many layers.
NAMED = Shape(64, (256, 6, 8), (256, 4, 8), 0.1, 16, 64)
EQUAL_WORK = Shape(64, (256, 8, 8), (256, 6, 8), 0.1, 16, 64)


def network(shape: Shape, vocabulary: Path) -> Multimodal:
    """This package's own parts."""
    dim, depth, heads = shape.image
    image = Timm(
        name="vit_tiny_patch16_224",
        pretrained=None,
        image_size=shape.image_size,
        patch_size=16,
        dim=dim,
        depth=depth,
        num_heads=heads,
        reg_tokens=None,
        dynamic_img_size=False,
        output_stride=None,
        pooling=None,
        normalize=True,
        dropout=shape.dropout,
        drop_path=0.0,
    )
    dim, depth, heads = shape.text
    text = HuggingFace(
        name=None,
        architecture="bert",
        tokenizer=str(vocabulary),
        pretrained=None,
        max_length=shape.max_length,
        pooling="cls",
        dim=dim,
        depth=depth,
        num_heads=heads,
        dropout=shape.dropout,
    )
    fusion = Concat({"image": image.dim, "text": text.dim}, 192, "concat", shape.dropout)
    head = Classification(
        fusion.dim, CLASSES, None, label_smoothing=0.0, focal_gamma=0, dropout=0.0
    )
    return Multimodal({"image": image, "text": text}, fusion, head)


def full(shape: Shape, draw: torch.Generator) -> int:
    return shape.max_length


def usual(shape: Shape, draw: torch.Generator) -> int:
    """Captions as people write them: 17 tokens in the mean, one in a hundred above 40."""
    length = torch.empty(()).log_normal_(2.75, 0.41, generator=draw)
    return int(length.clamp(5, shape.max_length))


# How many of the 24,614 captions of COCO val2017 have so many of BERT's tokens, [CLS] and [SEP]
# included: from 9 on, and those of 42 and more by themselves.
COCO = (
    *(82, 892, 3197, 4432, 4635, 3877, 2753, 1779, 1068, 680, 404, 258, 162, 106, 68, 59, 26, 29),
    *(23, 27, 18, 8, 5, 2, 4, 4, 2, 1, 3, 1, 1, 0, 1),
)
COCO_LONG = {45: 2, 46: 1, 48: 1, 52: 1, 59: 2}
COCO_LENGTHS = {**dict(enumerate(COCO, 9)), **COCO_LONG}


def coco(shape: Shape, draw: torch.Generator) -> int:
    """Captions of COCO."""
    counts = torch.tensor([float(count) for count in COCO_LENGTHS.values()])
    which = int(torch.multinomial(counts, 1, generator=draw))
    return min(list(COCO_LENGTHS)[which], shape.max_length)


def samples(count: int, shape: Shape, length: Callable[[Shape, torch.Generator], int]) -> list[Any]:
    """Noise with a trace of the label: a tint of the picture, some words of the caption."""
    draw = torch.Generator().manual_seed(0)
    tints = torch.randint(-6, 7, (CLASSES, 3, 1, 1), generator=draw)

    def one(label: int) -> dict[str, Any]:
        size = (3, shape.image_size, shape.image_size)
        image = torch.randint(40, 216, size, generator=draw) + tints[label]
        words = torch.randint(FIRST_WORD, VOCABULARY, (length(shape, draw) - 2,), generator=draw)
        telling = torch.rand(words.shape, generator=draw) < 0.1
        words[telling] = FIRST_WORD + label * 4 + words[telling] % 4
        text = torch.cat([torch.tensor([CLS]), words, torch.tensor([SEP])])
        return {"image": image.to(torch.uint8), "text": text, "label": label}

    return [one(index % CLASSES) for index in range(count)]


def padded(collate: Collate, length: int) -> Collate:
    """Every caption as long as the longest one allowed."""

    def padded_collate(tensors: list[Tensor]) -> Inputs:
        collated = collate(tensors)
        values, mask = collated.values, collated.mask
        assert mask is not None
        more = (0, length - values.shape[1])
        return Inputs(nn.functional.pad(values, more), nn.functional.pad(mask, more))

    return padded_collate
