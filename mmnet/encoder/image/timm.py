"""Vision transformers and convolutional networks from timm, for pictures of one size."""

from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from mmnet.bounds import Fraction, NonNegativeInt, PositiveInt
from mmnet.encoder import weights
from mmnet.encoder.image import bodies
from mmnet.encoder.image.bodies import CONVOLUTIONS, TRANSFORMERS, Sizes
from mmnet.encoder.image.pixels import mean_and_std, pixels, resized
from mmnet.encoder.pooling import Pooling
from mmnet.errors import UserError
from mmnet.interfaces import Features, Inputs


class Resize:
    """RGB picture, or uint8 [3, H, W] -> uint8 [3, S, S]: squeezed to a square, antialiased."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.blank = Image.new("RGB", (size, size))

    def __call__(self, raw: Image.Image | Tensor) -> Tensor:
        return resized(pixels(raw), self.size, self.size)

    def collate(self, tensors: list[Tensor]) -> Inputs:
        # Bytes travel to the device and become floats there: a quarter of the copying. Channels
        # last, as they were decoded: to lay them out anew is work for the device as well.
        rows = torch.stack([picture.permute(1, 2, 0) for picture in tensors])
        return Inputs(rows.permute(0, 3, 1, 2), None)


class Timm(nn.Module):
    """A timm network without its classifier.

    Either a plain vision transformer (Dosovitskiy et al., arXiv 2010.11929): its tokens are its
    class and register tokens, if any, then the patches. Or a ConvNeXt (Liu et al., arXiv
    2201.03545): its tokens are the places of the last feature map, row by row.

    `patch_size`, `dim`, `depth`, `num_heads` and `reg_tokens` (Darcet et al., arXiv 2309.16588)
    replace the named transformer's own where they are not None, `output_stride` (pixels from one
    token to the next) the named ConvNeXt's. `dynamic_img_size` lets a transformer take
    pictures of other sizes than `image_size` as well, its positions interpolated each time.
    Pixels are normalised with the mean and the deviation that the named model was published
    with, or, without `normalize`, only scaled to [0, 1].
    `pooling` None is the model's own. `pretrained` is None (random), "hub" (timm's published
    weights) or a .safetensors file, see mmnet.encoder.weights; position embeddings are
    interpolated to `image_size`.

    forward: uint8 [B, 3, S, S] -> tokens [B, T, D], pooled [B, D].
    """

    def __init__(
        self,
        name: str,
        pretrained: str | None,
        image_size: PositiveInt,
        patch_size: PositiveInt | None,
        dim: PositiveInt | None,
        depth: PositiveInt | None,
        num_heads: PositiveInt | None,
        reg_tokens: NonNegativeInt | None,
        dynamic_img_size: bool,
        output_stride: Literal[8, 16, 32] | None,
        pooling: Literal["cls", "mean", "attention"] | None,
        normalize: bool,
        dropout: Fraction,
        drop_path: Fraction,
    ) -> None:
        super().__init__()
        sizes = Sizes(patch_size, dim, depth, num_heads, reg_tokens, output_stride, drop_path)
        self.body: Any = build(
            name, pretrained, image_size, sizes, dynamic_img_size, pooling, dropout
        )
        self.is_map = hasattr(self.body, "stages")
        self.dim: int = self.body.num_features
        if self.is_map and pooling == "mean":
            pooling = None  # its own: the norm comes after the mean
        self.pool = None if pooling is None else Pooling(pooling, self.dim)
        self.skip = 0  # tokens that are no patches, and so no part of a mean
        if self.pool is not None and self.is_map:
            self.body.reset_classifier(0, "")  # its head then gives the whole map, normalised
        elif self.pool is not None:
            self.skip = 0 if pooling == "cls" else self.body.num_prefix_tokens
            self.body.attn_pool = None
        self.prepare = Resize(image_size)
        mean, std = mean_and_std(self.body.pretrained_cfg, normalize)
        self.register_buffer("mean", mean.view(3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        if pretrained not in (None, "hub"):
            bodies.load(self, self.body, str(pretrained))

    @staticmethod
    def check(
        name: str,
        pretrained: str | None,
        image_size: int,
        patch_size: int | None,
        dim: int | None,
        depth: int | None,
        num_heads: int | None,
        reg_tokens: int | None,
        dynamic_img_size: bool,
        output_stride: Literal[8, 16, 32] | None,
        pooling: str | None,
        dropout: float,
        drop_path: float,
        **_: Any,
    ) -> None:
        """Refuse what only timm or the disk can tell, before anything is built.

        Raises UserError.
        """
        weights.check_source("image", pretrained)
        sizes = Sizes(patch_size, dim, depth, num_heads, reg_tokens, output_stride, drop_path)
        with torch.device("meta"):  # shapes without numbers
            build(name, None, image_size, sizes, dynamic_img_size, pooling, dropout)

    def forward(self, inputs: Inputs) -> Features:
        pixels = inputs.values.contiguous()  # uint8 [B, 3, S, S]
        image = (pixels - self.mean) / self.std
        found = self.body.forward_features(image)
        tokens = rows_of(found) if self.is_map else found
        if self.pool is None:
            pooled = self.body.forward_head(found, pre_logits=True)
        elif self.is_map:
            pooled = self.pool(rows_of(self.body.forward_head(found, pre_logits=True)), None)
        else:
            pooled = self.body.fc_norm(self.pool(tokens[:, self.skip :], None))
        return Features(tokens, pooled, None)

    def layers(self) -> list[list[nn.Module | nn.Parameter]]:
        return bodies.layers(self.body)

    def pooling(self) -> list[nn.Module]:
        return bodies.pooling(self.body, self.pool)

    def checkpoint_activations(self) -> None:
        self.body.set_grad_checkpointing(True)


def rows_of(feature_map: Tensor) -> Tensor:
    """[B, D, H, W] -> [B, H*W, D]"""
    return feature_map.flatten(2).transpose(1, 2)


def build(
    name: str,
    pretrained: str | None,
    image_size: int,
    sizes: Sizes,
    dynamic_img_size: bool,
    pooling: str | None,
    dropout: float,
) -> Any:
    """The named model, held against what is asked of it. Raises UserError."""
    kinds = "a vision transformer or ConvNeXt"
    module = bodies.module_of(name, (*TRANSFORMERS, *CONVOLUTIONS), kinds)
    if module in CONVOLUTIONS:
        refused = {"patch_size": sizes.patch_size, "dropout": dropout}
        more: dict[str, Any] = {}
    else:
        refused = {}
        more = {"img_size": image_size, "proj_drop_rate": dropout, "pos_drop_rate": dropout}
    if dynamic_img_size:
        more["dynamic_img_size"] = True
    for key, value in refused.items():
        if value:
            raise UserError(bodies.no_such_thing(key, value, name))
    body = bodies.create(name, module, sizes, pretrained, **more)
    if sizes.reg_tokens and hasattr(body, "dist_token"):  # it has room for them, and no use
        raise UserError(bodies.no_such_thing("reg_tokens", sizes.reg_tokens, name))
    if pooling == "cls" and getattr(body, "cls_token", None) is None:
        raise UserError(
            f"encoder.image.pooling=cls: {name} has no class token; it could be mean or attention"
        )
    step: int = body.feature_info[-1]["reduction"]
    if image_size % step:
        what = "tokens" if module in CONVOLUTIONS else "patches"
        raise UserError(
            f"encoder.image.image_size={image_size}: {name} has {what} of {step} pixels, and an "
            f"image must be a whole number of them wide"
        )
    native = body.pretrained_cfg["input_size"][-1]
    if pretrained == "hub" and image_size != native and module in TRANSFORMERS:
        bodies.log.info(
            "encoder.image.pretrained=hub: %s was trained on pictures of %d pixels; its position "
            "embeddings are interpolated to %d",
            name,
            native,
            image_size,
        )
    return body
