"""Vision transformers from timm that take pictures in their own shapes (NaFlex)."""

from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image
from timm.data.naflex_transforms import get_image_size_for_seq
from torch import Tensor, nn
from torch.nn import functional as F

from mmnet.bounds import Fraction, NonNegativeInt, PositiveInt, Range
from mmnet.encoder import padded, weights
from mmnet.encoder.image import bodies
from mmnet.encoder.image.bodies import NAFLEX, Sizes
from mmnet.encoder.image.pixels import mean_and_std, pixels, resized
from mmnet.encoder.pooling import Pooling
from mmnet.errors import UserError
from mmnet.interfaces import Features, Inputs


SIDE = 255  # patches along one side at most, so that a place fits a byte
PLACE = 2  # bytes behind each patch: its row, its column


class Patches:
    """RGB picture, or uint8 [3, H, W] -> uint8 [N, P*P*3 + 2]: at most `max_patches`.

    Patches come row by row; one is its pixels, row by row, channels last, then its row and its
    column. The picture keeps its shape; it is shrunk where it has too many patches, never
    enlarged, and its sides are stretched to whole patches.
    """

    def __init__(self, patch_size: int, max_patches: int) -> None:
        self.patch_size, self.max_patches = patch_size, max_patches
        self.blank = Image.new("RGB", (1, 1))

    def __call__(self, raw: Image.Image | Tensor) -> Tensor:
        picture, side = pixels(raw), self.patch_size
        sides = (picture.shape[1], picture.shape[2])
        longest = SIDE * side / max(sides)
        _, (height, width) = get_image_size_for_seq(
            sides, side, self.max_patches, max_ratio=min(1.0, longest)
        )
        picture = resized(picture, height, width)
        rows, columns = height // side, width // side
        # [3, rows, side, columns, side] -> rows, columns, side, side, 3
        cells = picture.reshape(3, rows, side, columns, side).permute(1, 3, 2, 4, 0)
        places = np.indices((rows, columns), dtype=np.uint8).reshape(PLACE, -1).T
        return torch.cat([cells.reshape(rows * columns, -1), torch.from_numpy(places)], 1)

    def collate(self, tensors: list[Tensor]) -> Inputs:
        return padded(tensors)


class NaFlex(nn.Module):
    """A timm NaFlexViT (SigLIP 2, Tschannen et al., arXiv 2502.14786; NaViT, arXiv 2307.06304).

    Each picture is as many patches as its shape asks for, at most `max_patches`; shorter ones are
    padded. Its positions are read from the learned grid at each patch's place, between the
    grid's points where they fall there (as timm's `pos_embed_use_grid_sample`: no loop over
    shapes). `patch_size`, `dim`, `depth`, `num_heads` and `reg_tokens` replace the named
    model's own where they are not None; `pooling`, `normalize` and `pretrained` are as in
    mmnet.encoder.image.timm.

    forward: uint8 [B, N, P*P*3 + 2], mask [B, N] -> tokens [B, class and registers + N, D],
    pooled [B, D].
    """

    def __init__(
        self,
        name: str,
        pretrained: str | None,
        max_patches: Annotated[int, Range(1, 65026, says="a whole number from 1 to 65025")],
        patch_size: PositiveInt | None,
        dim: PositiveInt | None,
        depth: PositiveInt | None,
        num_heads: PositiveInt | None,
        reg_tokens: NonNegativeInt | None,
        pooling: Literal["mean", "attention"] | None,
        normalize: bool,
        dropout: Fraction,
        drop_path: Fraction,
    ) -> None:
        super().__init__()
        sizes = Sizes(patch_size, dim, depth, num_heads, reg_tokens, None, drop_path)
        self.body: Any = build(name, pretrained, sizes, dropout)
        self.dim: int = self.body.num_features
        self.prefix: int = self.body.num_prefix_tokens
        self.pool = None if pooling is None else Pooling(pooling, self.dim)
        if self.pool is not None:
            self.body.attn_pool = None
        self.prepare = Patches(self.body.embeds.patch_size[0], max_patches)
        mean, std = mean_and_std(self.body.pretrained_cfg, normalize)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.mean: Tensor
        self.std: Tensor
        if pretrained not in (None, "hub"):
            bodies.load(self, self.body, str(pretrained))

    @staticmethod
    def check(
        name: str,
        pretrained: str | None,
        patch_size: int | None,
        dim: int | None,
        depth: int | None,
        num_heads: int | None,
        reg_tokens: int | None,
        dropout: float,
        drop_path: float,
        **_: Any,
    ) -> None:
        """Refuse what only timm or the disk can tell, before anything is built.

        Raises UserError.
        """
        weights.check_source("image", pretrained)
        sizes = Sizes(patch_size, dim, depth, num_heads, reg_tokens, None, drop_path)
        with torch.device("meta"):  # shapes without numbers
            build(name, None, sizes, dropout)

    def forward(self, inputs: Inputs) -> Features:
        mask = inputs.mask
        assert mask is not None
        # Whatever stands in the padding would move the edges of its picture.
        values = inputs.values * mask.unsqueeze(-1)
        pixels = torch.unflatten(values[..., :-PLACE], -1, (-1, 3))  # [B, N, P*P, 3]
        patches = ((pixels - self.mean) / self.std).flatten(2)
        place = values[..., -PLACE:].long()  # [B, N, 2]
        found = self.body.forward_features(patches, patch_coord=place, patch_valid=mask)
        tokens = found["patches"]
        if self.pool is None:
            pooled = self.body.forward_head(tokens, pre_logits=True, patch_valid=mask)
        else:
            pooled = self.body.fc_norm(self.pool(tokens[:, self.prefix :], mask))
        return Features(tokens, pooled, F.pad(mask, (self.prefix, 0), value=True))

    def layers(self) -> list[list[nn.Module | nn.Parameter]]:
        return bodies.layers(self.body)

    def pooling(self) -> list[nn.Module]:
        return bodies.pooling(self.body, self.pool)

    def checkpoint_activations(self) -> None:
        self.body.set_grad_checkpointing(True)


def build(name: str, pretrained: str | None, sizes: Sizes, dropout: float) -> Any:
    """The named model, held against what is asked of it. Raises UserError."""
    module = bodies.module_of(name, NAFLEX, "a vision transformer for pictures of any shape")
    body = bodies.create(
        name,
        module,
        sizes,
        pretrained,
        proj_drop_rate=dropout,
        pos_drop_rate=dropout,
        pos_embed_use_grid_sample=True,
        use_key_only_attn_mask=True,
    )
    if body.embeds.pos_embed_type != "learned":
        raise UserError(
            f"encoder.image.name={name}: its position embeddings are "
            f"{body.embeds.pos_embed_type}; only models with a learned grid of them are supported"
        )
    return body
