"""Early fusion: one transformer over the tokens of all modalities."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mmnet.bounds import Fraction, PositiveInt
from mmnet.fusion.blocks import block, keys
from mmnet.fusion.tokenwise import Tokenwise, beside
from mmnet.interfaces import Features, Fused


class Early(Tokenwise):
    """A pre-norm transformer in which every token sees every other; a learned token joins them.

    Each token is projected to `dim` and told its modality and its place. Places are sinusoids
    (Vaswani et al., arXiv 1706.03762), which know no longest text, with a learned gain for each
    channel and modality; encoders whose tokens carry their places already lose nothing by it.

    forward: {modality: Features} -> joint [B, dim], tokens {modality: [B, T, dim]}.
    """

    modalities: ClassVar[int] = 1

    def __init__(
        self,
        dims: dict[str, int],
        dim: PositiveInt,
        depth: PositiveInt,
        num_heads: PositiveInt,
        dropout: Fraction,
    ) -> None:
        super().__init__(dims, dim, num_heads, dropout)
        self.token = nn.Parameter(torch.empty(1, 1, dim))
        self.modality = nn.ParameterDict({name: torch.empty(dim) for name in dims})
        self.position = nn.ParameterDict({name: torch.full((dim,), 0.02) for name in dims})
        self.blocks = nn.ModuleList(block(dim, num_heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        for embedding in (self.token, *self.modality.values()):
            nn.init.normal_(embedding, std=0.02)

    def forward(self, features: dict[str, Features]) -> Fused:
        parts = {
            name: x + self.modality[name] + self.position[name] * sinusoids(x)
            for name, x in self.projected(features).items()
        }
        some = next(iter(parts.values()))
        token = self.token.expand(some.shape[0], -1, -1)
        x = torch.cat([token, *parts.values()], 1)
        masks = [(part, features[name].visible()) for name, part in parts.items()]
        attend = keys(beside([(token, None), *masks]))
        for one in self.blocks:
            x = self.run(one, x, attend)
        joint, *tokens = self.norm(x).split([1, *(part.shape[1] for part in parts.values())], 1)
        return Fused(joint.squeeze(1), dict(zip(parts, tokens, strict=True)), features)


def sinusoids(x: Tensor) -> Tensor:
    """Of the places of tokens [B, T, D] -> [T, D], fp32: sines, then cosines."""
    length, dim = x.shape[1:]
    rates = torch.arange((dim + 1) // 2, device=x.device) * (-9.21 / ((dim + 1) // 2))  # ln 10^4
    angles = torch.arange(length, device=x.device)[:, None] * rates.exp()
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :dim]
