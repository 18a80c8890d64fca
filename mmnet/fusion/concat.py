"""Late fusion: put the pooled vectors side by side and project."""

import torch
from torch import Tensor, nn

from mmnet.bounds import Fraction, PositiveInt
from mmnet.interfaces import Features


class Concat(nn.Module):
    """LayerNorm of each pooled vector, side by side, then a two-layer MLP.

    The norms keep a tower with larger activations from drowning the other one.
    forward: {modality: Features} -> [B, dim].
    """

    def __init__(self, dims: dict[str, int], dim: PositiveInt, dropout: Fraction) -> None:
        super().__init__()
        self.dim = dim
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name, width in dims.items()})
        self.mlp = nn.Sequential(
            nn.Linear(sum(dims.values()), 2 * dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * dim, dim),
            nn.GELU(),
        )

    def forward(self, features: dict[str, Features]) -> Tensor:
        pooled = [norm(features[name].pooled) for name, norm in self.norms.items()]
        fused: Tensor = self.mlp(torch.cat(pooled, dim=-1))
        return fused
