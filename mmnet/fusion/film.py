"""Feature-wise linear modulation: one modality scales and shifts the other's channels."""

from typing import ClassVar, Literal

from torch import Tensor, nn

from mmnet.bounds import Fraction, PositiveInt
from mmnet.fusion import refuse_others
from mmnet.fusion.late import Late
from mmnet.interfaces import Features


class FiLM(Late):
    """FiLM (Perez et al., arXiv 1709.07871) of a pooled vector: (1 + scale) * x + shift.

    x is the one modality's normalised pooled vector, projected; scale and shift are linear in
    that of `condition`. A two-layer MLP's second half follows. No bias is added on the way in
    (the norms have theirs), so that a missing `condition` leaves x as it is, and a missing x
    leaves the shift alone.

    forward: {modality: Features} -> joint [B, dim].
    """

    modalities: ClassVar[int] = 2

    def __init__(
        self,
        dims: dict[str, int],
        dim: PositiveInt,
        condition: Literal["image", "text"],
        dropout: Fraction,
    ) -> None:
        refuse_others(dims, "FiLM", 2, "image", "text")
        super().__init__(dims, dim)
        self.condition = condition
        self.modulated = "image" if condition == "text" else "text"
        self.project = nn.Linear(dims[self.modulated], dim, bias=False)
        self.modulate = nn.Linear(dims[condition], 2 * dim, bias=False)
        self.mlp = nn.Sequential(
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(dim, dim),
            nn.GELU(),
        )

    def join(self, features: dict[str, Features]) -> Tensor:
        vectors, _ = self.vectors(features)
        scale, shift = self.modulate(vectors[self.condition]).chunk(2, -1)
        fused: Tensor = self.mlp((1 + scale) * self.project(vectors[self.modulated]) + shift)
        return fused
