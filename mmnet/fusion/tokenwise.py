"""What fusions of tokens share: one width for all modalities, masks, recomputed activations."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmnet.errors import UserError
from mmnet.fusion import refuse_others
from mmnet.interfaces import Features


class Tokenwise(nn.Module):
    """A fusion by attention between tokens: say in `forward` who sees whom.

    Raises UserError when there are fewer encoders than it joins, or when `num_heads` does not
    divide `dim`.
    """

    joins: ClassVar[bool] = True
    pools: ClassVar[bool] = False
    modalities: ClassVar[int]

    def __init__(self, dims: dict[str, int], dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        refuse_others(dims, type(self).__name__, self.modalities)
        if dim % num_heads:
            raise UserError(
                f"fusion.num_heads={num_heads}: attention splits fusion.dim={dim} among its heads; "
                f"fusion.dim={max(1, dim // num_heads) * num_heads} would do"
            )
        self.dim = dim
        self.token_dims = dict.fromkeys(dims, dim)
        # The norms keep a tower with larger activations from drowning the other one.
        self.project = nn.ModuleDict(
            {
                name: nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim), nn.Dropout(dropout))
                for name, width in dims.items()
            }
        )
        self.recompute = False

    def projected(self, features: dict[str, Features]) -> dict[str, Tensor]:
        """The tokens [B, T, dim] of the modalities that are there, in the order of `dims`."""
        return {
            name: project(features[name].tokens)
            for name, project in self.project.items()
            if name in features
        }

    def run(self, layer: nn.Module, *args: Any) -> Any:
        """One layer, its activations kept for backward or computed again."""
        if self.recompute and self.training:
            return checkpoint(layer, *args, use_reentrant=False)
        return layer(*args)

    def checkpoint_activations(self) -> None:
        self.recompute = True


def beside(masks: list[tuple[Tensor, Tensor | None]]) -> Tensor | None:
    """The masks of tokens [B, T, ...] that are put side by side; None where all are visible."""
    if all(mask is None for _, mask in masks):
        return None
    return torch.cat(
        [
            torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
            for x, mask in masks
        ],
        1,
    )
