"""Vision transformers from timm."""

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from mmnet.bounds import Fraction, PositiveInt
from mmnet.errors import UserError, first_line, nearest
from mmnet.interfaces import Features, Inputs


# timm's modules whose models give tokens [B, T, D] and take these sizes: ViT, DeiT, CLIP, SigLIP,
# DINOv2 (all vision_transformer and deit), BEiT, EVA, DINOv3.
MODULES = ("vision_transformer", "deit", "beit", "eva")


class Resize:
    """RGB picture -> uint8 [3, S, S]: the whole picture, squeezed to a square, antialiased."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.blank = Image.new("RGB", (size, size))

    def __call__(self, raw: Image.Image) -> Tensor:
        if raw.size != (self.size, self.size):
            raw = raw.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(raw)).permute(2, 0, 1)

    def collate(self, tensors: list[Tensor]) -> Inputs:
        # Bytes travel to the device and become floats there: a quarter of the copying.
        return Inputs(torch.stack(tensors), None)


class ViT(nn.Module):
    """A timm vision transformer (Dosovitskiy et al., arXiv 2010.11929) without its classifier.

    `name` is any plain ViT of timm (MODULES); `patch_size`, `dim`, `depth` and `num_heads`
    replace the named model's own sizes where they are not None. `pretrained` is None (random),
    "hub" (timm's published weights) or a local .safetensors file; position embeddings are
    resampled to `image_size`.

    forward: uint8 [B, 3, S, S] -> tokens [B, 1 + (S / patch)^2, D], pooled [B, D].
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
        dropout: Fraction,
    ) -> None:
        super().__init__()
        self.body: Any
        sizes: dict[str, Any] = {
            "patch_size": patch_size,
            "embed_dim": dim,
            "depth": depth,
            "num_heads": num_heads,
        }
        source: dict[str, Any] = {"pretrained": pretrained is not None}
        if pretrained not in (None, "hub"):
            source["pretrained_cfg_overlay"] = {"file": pretrained}
        try:
            self.body = timm.create_model(
                name,
                img_size=image_size,
                num_classes=0,
                proj_drop_rate=dropout,
                pos_drop_rate=dropout,
                **{key: value for key, value in sizes.items() if value is not None},
                **source,
            )
        except AssertionError as error:  # how timm checks that heads divide the width
            raise UserError(f"encoder.image: {name} cannot have these sizes: {error}") from error
        except (RuntimeError, OSError, ValueError, SafetensorError) as error:
            if pretrained is None:
                raise
            raise UserError(
                f"encoder.image.pretrained={pretrained}: cannot load weights for {name}: "
                f"{first_line(error)}"
            ) from error
        patch = self.body.patch_embed.patch_size[0]
        if image_size % patch:
            raise UserError(
                f"encoder.image.image_size={image_size}: {name} has patches of {patch} pixels, and "
                f"an image must be a whole number of them wide"
            )
        self.dim: int = self.body.num_features
        self.prepare = Resize(image_size)
        for key in ("mean", "std"):
            value = torch.tensor(self.body.pretrained_cfg[key]).view(3, 1, 1) * 255
            self.register_buffer(key, value, persistent=False)
        self.mean: Tensor
        self.std: Tensor

    @staticmethod
    def check(name: str, pretrained: str | None, **_: Any) -> None:
        """Refuse what only timm or the disk can tell, before anything is built.

        Raises UserError.
        """
        if not timm.is_model(name.split(".")[0]):
            raise UserError(
                f"encoder.image.name={name}: timm has no such model"
                + nearest(name, timm.list_models())
            )
        if name.split(".")[0] not in transformers("*"):
            raise UserError(
                f"encoder.image.name={name}: not a vision transformer of timm's modules "
                f"{', '.join(MODULES)}{nearest(name, transformers('*'))}"
            )
        if pretrained not in (None, "hub"):
            if not pretrained.endswith(".safetensors"):
                raise UserError(
                    f"encoder.image.pretrained={pretrained}: expected null, hub or a "
                    f".safetensors file"
                )
            if not Path(pretrained).is_file():
                raise UserError(f"encoder.image.pretrained={pretrained}: no such file")

    def forward(self, inputs: Inputs) -> Features:
        image = (inputs.values - self.mean) / self.std  # uint8 [B, 3, S, S] -> float
        tokens = self.body.forward_features(image)
        return Features(tokens, self.body.forward_head(tokens, pre_logits=True), None)

    def checkpoint_activations(self) -> None:
        self.body.set_grad_checkpointing(True)


def transformers(pattern: str) -> list[str]:
    """timm's names of plain vision transformers that match `pattern`; nothing is built."""
    return [name for module in MODULES for name in timm.list_models(pattern, module=module)]
