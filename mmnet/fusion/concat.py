"""Late fusion: one vector of each modality, joined."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mmnet.bounds import Fraction, PositiveInt
from mmnet.fusion.late import Late, shares
from mmnet.interfaces import Features


class Concat(Late):
    """LayerNorm of each pooled vector, all joined by `method`, then a two-layer MLP.

    The norms keep a tower with larger activations from drowning the other one. `concat` puts
    the vectors side by side; `add` projects each to `dim` and takes the mean of those there
    are; `attention` does so with weights that each vector earns by a learned score.
    A missing modality is a zero vector to `concat` and left out by the other two.

    forward: {modality: Features} -> joint [B, dim].
    """

    modalities: ClassVar[int] = 1

    def __init__(
        self,
        dims: dict[str, int],
        dim: PositiveInt,
        method: Literal["concat", "add", "attention"],
        dropout: Fraction,
    ) -> None:
        super().__init__(dims, dim)
        self.method = method
        width = sum(dims.values())
        if method != "concat":
            width = dim
            self.project = nn.ModuleDict({name: nn.Linear(d, dim) for name, d in dims.items()})
        if method == "attention":
            self.score = nn.Linear(dim, 1)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * dim, dim),
            nn.GELU(),
        )

    def join(self, features: dict[str, Features]) -> Tensor:
        vectors, present = self.vectors(features)
        if self.method == "concat":
            fused: Tensor = self.mlp(torch.cat(list(vectors.values()), dim=-1))
            return fused
        stacked = torch.stack([self.project[name](x) for name, x in vectors.items()], 1)
        if self.method == "attention":
            score = self.score(stacked).squeeze(-1)
        else:
            score = torch.zeros_like(stacked[..., 0])
        weight = shares(score, present).unsqueeze(-1)
        fused = self.mlp((weight * stacked).sum(1))
        return fused
