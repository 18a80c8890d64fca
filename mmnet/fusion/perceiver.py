"""Perceiver: a few latents read the tokens of all modalities and answer for them."""

from typing import ClassVar

import torch
from torch import nn

from mmnet.bounds import Fraction, PositiveInt
from mmnet.fusion.blocks import CrossAttend, CrossBlock
from mmnet.fusion.tokenwise import Tokenwise, beside
from mmnet.interfaces import Features, Fused


class Perceiver(Tokenwise):
    """Perceiver (Jaegle et al., arXiv 2103.03206): cost grows with the tokens, not their square.

    In each layer the latents attend to all tokens, then to each other; weights are not shared.
    In the end, as in Perceiver IO (arXiv 2107.14795), a learned query and the tokens themselves
    ask the latents: the query's answer is the joint vector, and each token is handed on with what
    the latents told it.

    forward: {modality: Features} -> joint [B, dim], tokens {modality: [B, T, dim]}.
    """

    modalities: ClassVar[int] = 1

    def __init__(
        self,
        dims: dict[str, int],
        dim: PositiveInt,
        depth: PositiveInt,
        num_heads: PositiveInt,
        num_latents: PositiveInt,
        dropout: Fraction,
    ) -> None:
        super().__init__(dims, dim, num_heads, dropout)
        self.latents = nn.Parameter(0.02 * torch.randn(1, num_latents, dim))
        self.query = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.layers = nn.ModuleList(
            CrossBlock(dim, num_heads, dropout, crosses=True) for _ in range(depth)
        )
        self.answer = CrossAttend(dim, num_heads, dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: dict[str, Features]) -> Fused:
        parts = self.projected(features)
        tokens = torch.cat(list(parts.values()), 1)
        visible = beside([(x, features[name].visible()) for name, x in parts.items()])
        latents = self.latents.expand(tokens.shape[0], -1, -1)
        for layer in self.layers:
            latents = self.run(layer, latents, None, tokens, visible)

        asking = torch.cat([self.query.expand(tokens.shape[0], -1, -1), tokens], 1)
        answers = self.norm(self.run(self.answer, asking, latents, None))
        sizes = [x.shape[1] for x in parts.values()]
        joint, *told = answers.split([1, *sizes], 1)
        return Fused(joint.squeeze(1), dict(zip(parts, told, strict=True)), features)
