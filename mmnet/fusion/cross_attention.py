"""Cross-attention: the tokens of each modality look at those of the other."""

from typing import Any, ClassVar, Literal

import torch
from torch import nn

from mmnet.bounds import Fraction, PositiveInt
from mmnet.fusion import refuse_others
from mmnet.fusion.blocks import CrossBlock, keys, masked_mean
from mmnet.fusion.tokenwise import Tokenwise
from mmnet.interfaces import Features, Fused


OTHER = {"image": "text", "text": "image"}
# The streams that look at the other one: those that the arrow points to.
LOOKING = {
    "both": ("image", "text"),
    "image_to_text": ("text",),
    "text_to_image": ("image",),
}


class CrossAttention(Tokenwise):
    """Two streams that look at each other in every layer (LXMERT, arXiv 1908.07490).

    A layer of a stream (Tan & Bansal): cross-attention to the other stream as the layer before
    left it, self-attention, MLP; each with weights of its own. A stream that `direction` does
    not point to has the last two only, and so has a sample whose other modality is missing.
    Each stream gives one vector (`pooling`): the mean of its tokens, or what becomes of a
    learned token put in front of them. The joint vector is the mean over the streams that are
    there.

    forward: {modality: Features} -> joint [B, dim], tokens {modality: [B, T, dim]}.
    """

    modalities: ClassVar[int] = 2

    def __init__(
        self,
        dims: dict[str, int],
        dim: PositiveInt,
        depth: PositiveInt,
        num_heads: PositiveInt,
        direction: Literal["both", "image_to_text", "text_to_image"],
        pooling: Literal["mean", "cls"],
        dropout: Fraction,
    ) -> None:
        refuse_others(dims, "CrossAttention", 2, "image", "text")
        super().__init__(dims, dim, num_heads, dropout)
        self.cls = nn.ParameterDict()
        if pooling == "cls":
            self.cls.update({name: 0.02 * torch.randn(1, 1, dim) for name in dims})
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: CrossBlock(dim, num_heads, dropout, crosses=name in LOOKING[direction])
                    for name in dims
                }
            )
            for _ in range(depth)
        )
        self.norms = nn.ModuleDict({name: nn.LayerNorm(dim) for name in dims})

    def forward(self, features: dict[str, Features]) -> Fused:
        streams = self.projected(features)
        present = {name: features[name].there() for name in streams}
        visible = {name: features[name].visible() for name in streams}
        for name, token in self.cls.items():
            if name in streams:
                x, seen = streams[name], visible[name]
                streams[name] = torch.cat([token.expand(x.shape[0], -1, -1), x], 1)
                if seen is not None:
                    visible[name] = torch.cat([present[name][:, None], seen], 1)

        attend = {name: keys(seen) for name, seen in visible.items()}
        layer: Any
        for layer in self.layers:
            before = streams
            streams = {
                name: self.run(
                    layer[name], x, attend[name], before.get(OTHER[name]), visible.get(OTHER[name])
                )
                for name, x in before.items()
            }

        streams = {name: self.norms[name](x) for name, x in streams.items()}
        if self.cls:
            pooled = [x[:, 0] for x in streams.values()]
            streams = {name: x[:, 1:] for name, x in streams.items()}
        else:
            pooled = [masked_mean(x, visible[name]) for name, x in streams.items()]
        joint = masked_mean(torch.stack(pooled, 1), torch.stack(list(present.values()), 1))
        return Fused(joint, streams, features)
