"""Low-rank tensor fusion: products of the channels of all modalities, in few dimensions."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from mmnet.bounds import Fraction, PositiveInt
from mmnet.fusion.late import Late
from mmnet.interfaces import Features


class LowRank(Late):
    """LMF (Liu et al., arXiv 1806.00064): the sum over `rank` of the product of projections.

    The joint vector is linear in the outer product of the normalised pooled vectors, each with
    a 1 appended, by a weight of this rank. The 1 is the projections' bias: through it a
    modality keeps terms of its own, and one that is missing is a constant. The paper's weight
    of each rank is left to the projections.

    forward: {modality: Features} -> joint [B, dim].
    """

    modalities: ClassVar[int] = 2

    def __init__(
        self, dims: dict[str, int], dim: PositiveInt, rank: PositiveInt, dropout: Fraction
    ) -> None:
        super().__init__(dims, dim)
        self.rank = rank
        self.factors = nn.ModuleDict(
            {name: nn.Linear(width, rank * dim) for name, width in dims.items()}
        )
        self.dropout = nn.Dropout(dropout)

    def join(self, features: dict[str, Features]) -> Tensor:
        vectors, _ = self.vectors(features)
        factors = torch.stack([self.factors[name](x) for name, x in vectors.items()])
        products = factors.prod(0).view(-1, self.rank, self.dim)
        fused: Tensor = self.dropout(products.sum(1) / self.rank**0.5)
        return fused
