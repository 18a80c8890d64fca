"""Attention bottlenecks: modalities exchange only what fits through a few tokens."""

from typing import Annotated, Any, ClassVar

import torch
from torch import nn

from mmnet.bounds import Fraction, PositiveInt, Range
from mmnet.fusion.blocks import block, keys, masked_mean
from mmnet.fusion.tokenwise import Tokenwise, beside
from mmnet.interfaces import Features, Fused


class Bottleneck(Tokenwise):
    """MBT (Nagrani et al., arXiv 2107.00135): a transformer for each modality, shared tokens.

    In each layer the tokens of a modality and the bottleneck tokens attend to each other; the
    bottlenecks then are the mean of what the modalities that are there made of them. What one
    modality wrote, the others read a layer later, hence at least two layers. The joint vector
    is the mean of the bottlenecks in the end: they saw both modalities, whereas the paper's
    class tokens, one a modality, take a layer more to ask with what they were told.

    forward: {modality: Features} -> joint [B, dim], tokens {modality: [B, T, dim]}.
    """

    modalities: ClassVar[int] = 2

    def __init__(
        self,
        dims: dict[str, int],
        dim: PositiveInt,
        depth: Annotated[int, Range(2, says="a whole number of at least 2")],
        num_heads: PositiveInt,
        num_bottlenecks: PositiveInt,
        dropout: Fraction,
    ) -> None:
        super().__init__(dims, dim, num_heads, dropout)
        self.bottlenecks = nn.Parameter(0.02 * torch.randn(1, num_bottlenecks, dim))
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: block(dim, num_heads, dropout) for name in dims})
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: dict[str, Features]) -> Fused:
        streams = self.projected(features)
        present = torch.stack([features[name].there() for name in streams], 1)
        shared = self.bottlenecks.expand(present.shape[0], -1, -1)
        attend = {
            name: keys(beside([(shared, None), (x, features[name].visible())]))
            for name, x in streams.items()
        }

        layer: Any
        for layer in self.layers:
            written = []
            for name, x in streams.items():
                both = self.run(layer[name], torch.cat([shared, x], 1), attend[name])
                ours, streams[name] = both.split([shared.shape[1], x.shape[1]], 1)
                written.append(ours)
            shared = masked_mean(torch.stack(written, 1), present)

        tokens = {name: self.norm(x) for name, x in streams.items()}
        return Fused(self.norm(shared).mean(1), tokens, features)
