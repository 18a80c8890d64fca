"""Gated multimodal units: how much of each modality, channel by channel."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmnet.bounds import Fraction, PositiveInt
from mmnet.fusion.late import Late, shares
from mmnet.interfaces import Features


class Gated(Late):
    """GMU (Arevalo et al., arXiv 1702.01992): h = z * tanh(W x) + (1 - z) * tanh(V y).

    z = sigmoid(U [x, y]), one gate a channel, from the normalised pooled vectors of both. It is
    the softmax of two scores, of which the second is 0, and so it is written: more modalities
    get a score each, and the shares are those of the modalities that are there. One that is
    alone has all of it.

    forward: {modality: Features} -> joint [B, dim], in (-1, 1) but for dropout.
    """

    modalities: ClassVar[int] = 2

    def __init__(self, dims: dict[str, int], dim: PositiveInt, dropout: Fraction) -> None:
        super().__init__(dims, dim)
        self.values = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in dims.items()})
        self.gate = nn.Linear(sum(dims.values()), (len(dims) - 1) * dim)
        self.dropout = nn.Dropout(dropout)

    def join(self, features: dict[str, Features]) -> Tensor:
        vectors, present = self.vectors(features)
        values = torch.stack([self.values[name](x).tanh() for name, x in vectors.items()], 1)
        scores = self.gate(torch.cat(list(vectors.values()), -1)).unflatten(-1, (-1, self.dim))
        gates = shares(F.pad(scores, (0, 0, 0, 1)), present)  # [B, M, dim]
        fused: Tensor = self.dropout((gates * values).sum(1))
        return fused
